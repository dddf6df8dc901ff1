"""A pseudo-terminal driver: a program on one side, a person's keys and eyes on the other."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

# Makes the new session's terminal its controlling one, as a login does, and becomes the program.
LOGIN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*([@-~]|$)|\x1b\].*?(\x07|\x1b\\|$)|\x1b.?|\r(?=\n)", re.S)


class Terminal:
    """A program on a pseudo-terminal of its own, in its own session; `with` kills its group."""

    def __init__(self, argv, cwd, env, rows, cols):
        if sys.platform == "win32":
            pytest.skip("Windows has no pseudo-terminals in Python's standard library")
        import fcntl
        import termios

        self.raw, self._mark = "", 0
        self._changed, self._eof = threading.Condition(), False
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", LOGIN, *map(str, argv)], cwd=cwd, env=env,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(1.0)
        os.close(self._master)

    def _read(self):
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while not self._eof:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says EIO when the last holder of the other side is gone
                data = b""
            with self._changed:
                self.raw += decoder.decode(data, not data)
                self._eof = not data
                self._changed.notify_all()

    @property
    def plain(self):
        """All output so far, without escape sequences, its line ends as \\n."""
        return ESCAPE.sub("", self.raw)

    def send(self, text):
        """Type the text, without Enter."""
        os.write(self._master, text.encode("utf-8"))

    def line(self, text=""):
        """Type the text and Enter."""
        self.send(text + "\r")

    def paste(self, text):
        """Paste as a terminal does: bracketed where the program has asked for it."""
        text = text.replace("\n", "\r")
        asked = self.raw.rfind("\x1b[?2004h") > self.raw.rfind("\x1b[?2004l")
        self.send(f"\x1b[200~{text}\x1b[201~" if asked else text)

    def ctrl_c(self):
        """Press Ctrl-C, a little later: Python's input() loses what comes before its read."""
        time.sleep(0.1)
        self.send("\x03")

    def expect(self, wanted, timeout=10.0):
        """The plain output since the last match, up to the end of this one.

        AssertionError when the timeout (seconds) passes or the program ends first.
        """
        pattern = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        with self._changed:
            self._changed.wait_for(
                lambda: self._eof or pattern.search(self.plain, self._mark), timeout
            )
            found = pattern.search(self.plain, self._mark)
            assert found, f"no {pattern.pattern!r}; the raw tail: {self.raw[-2000:]!r}"
            start, self._mark = self._mark, found.end()
            return self.plain[start : self._mark]

    def wait(self, timeout=10.0):
        """The exit code, -N after signal N."""
        code = self.process.wait(timeout)
        self._reader.join(1.0)
        return code
