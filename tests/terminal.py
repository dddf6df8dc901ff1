"""A pseudo-terminal driver: a program on one side, a person's keys and eyes on the other.

with Terminal([sys.executable, "program.py"]) as terminal:
    terminal.expect("name? ")
    terminal.line("Ada")
    assert "hello Ada" in terminal.expect(re.compile(r"hello \\w+"))
    assert terminal.wait() == 0
"""

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from vt_screen import Screen

if sys.platform != "win32":
    import fcntl
    import termios

# Makes the new session's terminal its controlling one, as a login does, and becomes the program.
LOGIN = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program on a pseudo-terminal of its own, in its own session; `with` kills its group."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        rows: int = 24,
        cols: int = 80,
    ) -> None:
        if sys.platform == "win32":
            pytest.skip("Windows has no pseudo-terminals in Python's standard library")
        self.raw, self._mark = "", 0
        self._vt, self._changed, self._eof = Screen(rows, cols), threading.Condition(), False
        self._master, slave = os.openpty()
        self.resize(rows, cols)
        command = [sys.executable, "-ISc", LOGIN, *map(str, argv)]
        environment = {"TERM": "xterm-256color", **(os.environ if env is None else env)}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.kill()

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says EIO when the last holder of the other side is gone
                data = b""
            with self._changed:
                text = decoder.decode(data, not data)
                self.raw += text
                self._vt.feed(text)
                self._eof = not data
                self._changed.notify_all()
            if not data:
                return

    def send(self, text: str) -> None:
        """Type the text, without Enter."""
        data = text.encode("utf-8")
        while data:
            data = data[os.write(self._master, data) :]

    def line(self, text: str = "") -> None:
        """Type the text and Enter."""
        self.send(text + "\r")

    def paste(self, text: str) -> None:
        """Paste as a terminal does: bracketed where the program has asked for it."""
        text = text.replace("\r\n", "\n").replace("\n", "\r")
        self.send(f"\x1b[200~{text}\x1b[201~" if "2004" in self._vt.modes else text)

    def ctrl_c(self) -> None:
        """Press Ctrl-C, where /proc tells once the program waits (for a second at most).

        Python's input() loses an interrupt that comes between its prompt and its read.
        """
        state, quiet = Path(f"/proc/{self.process.pid}/stat"), 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                fields = state.read_text("utf-8", "replace").rpartition(")")[2].split()
                quiet = 0 if fields[0] == "R" else quiet + 1
            if quiet == 3 or not state.exists():
                break
            time.sleep(0.005)
        self.send("\x03")

    def eof(self) -> None:
        self.send("\x04")

    def expect(self, wanted: str | re.Pattern[str], timeout: float = 10.0) -> str:
        """The output since the last match, up to the end of this one, without escape sequences.

        A str is searched as it is; line ends are \\n. AssertionError with the raw tail when the
        timeout (seconds) passes or the program ends first.
        """
        pattern = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        found: re.Match[str] | None = None

        def seen() -> bool:
            nonlocal found
            found = pattern.search(self._vt.plain, self._mark)
            return found is not None or self._eof

        with self._changed:
            self._changed.wait_for(seen, timeout)
            if found is None:
                why = "the program ended" if self._eof else f"{timeout} s passed"
                raise AssertionError(
                    f"{why} without {pattern.pattern!r}; raw tail: {self.raw[-2000:]!r}"
                )
            start, self._mark = self._mark, found.end()
            return self._vt.plain[start : self._mark]

    def skip(self) -> str:
        """The output since the last match; the next `expect` starts after it."""
        with self._changed:
            start, self._mark = self._mark, len(self._vt.plain)
            return self._vt.plain[start:]

    @property
    def plain(self) -> str:
        """All output so far, without escape sequences."""
        return self._vt.plain

    def screen(self, history: bool = False) -> str:
        """What is on the screen, without trailing blanks; `history` adds what has scrolled off."""
        with self._changed:
            return self._vt.text(history)

    def cursor(self) -> tuple[int, int]:
        """Row and column, from 0."""
        return self._vt.row, self._vt.col

    def resize(self, rows: int, cols: int) -> None:
        """Change the window; the kernel sends SIGWINCH to the foreground group."""
        with self._changed:
            self._vt.resize(rows, cols)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def wait(self, timeout: float = 10.0) -> int:
        """The exit code, -N after signal N; AssertionError when the program goes on."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            tail = repr(self.raw[-2000:])
            raise AssertionError(f"still running after {timeout} s; raw tail: {tail}") from None
        self._reader.join(1.0)
        return code

    def kill(self) -> None:
        """Kill the program's group and close the terminal; also after the program has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(1.0)
        if self._master >= 0 and not self._reader.is_alive():
            os.close(self._master)
            self._master = -1
