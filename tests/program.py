"""The program under test as a process: where it is, its clean environment, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("MCA_FILE", ROOT / "mini_coding_agent.py")).resolve()
START = [sys.executable, str(ROOT / "tests" / "start.py"), str(PROGRAM)]  # before its arguments
MARK = "MCA_TEST_MARK"  # the environment variable by which a test's processes are known
FOREIGN = (
    *("OLLAMA_", "GIT_", "PYTHON", "XDG_", "MCA_", "PYTEST_", "LC_", "LANG", "NO_COLOR"),
    *("FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "INPUTRC", "COLORTERM"),
)


@dataclass(frozen=True)
class Result:
    """What a finished program left behind; both streams decoded as UTF-8, line ends kept."""

    code: int
    out: str
    err: str


def clean_env(home, scratch, mark):
    """The environment without the user's settings; its processes carry the mark."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(FOREIGN) and not name.lower().endswith("_proxy")
    }
    utf8 = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    places = dict.fromkeys(("HOME", "USERPROFILE"), str(home))
    places |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    return {
        **kept,
        **places,
        "TERM": "dumb",
        "LC_ALL": utf8,
        "GIT_CONFIG_NOSYSTEM": "1",
        MARK: mark,
    }


def command_of(script):
    """What starts this script; None: the program under test."""
    return [sys.executable, script] if script else START


def changed(env, by):
    """The environment with these values; None takes a name away."""
    merged = {**env, **(by or {})}
    return {name: value for name, value in merged.items() if value is not None}


def kill_marked(mark):
    """Kill the processes whose environment holds this mark, until a look finds none (Linux)."""
    wanted, found = f"{MARK}={mark}".encode(), True
    while found:
        found = False
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in entry.read_bytes().split(b"\0"):
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    found = True


def kill_group(process):
    """Kill a process that `spawn` started, and its group."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class Processes:
    """Starts programs, and kills them with their groups at `close()`."""

    def __init__(self, env, cwd):
        self.env, self.cwd = env, cwd
        self.started: list[subprocess.Popen[bytes]] = []

    def spawn(self, *args, env=None, cwd=None, stdin=subprocess.DEVNULL, program=None, argv=None):
        """Start the program, output to pipes, in a session without a controlling terminal.

        `env` is added to the clean one, None removes a name; `program` is started as a script;
        `argv` replaces interpreter and program.
        """
        command = [*map(str, argv or command_of(program)), *map(str, args)]
        process = subprocess.Popen(
            command, cwd=cwd or self.cwd, env=changed(self.env, env), stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=sys.platform != "win32",
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *args, stdin=None, timeout=30.0, **kwargs):
        """Run the program to its end.

        `stdin` is what a pipe delivers before it closes; None: /dev/null. After `timeout` seconds
        the group is killed: AssertionError with what had been written.
        """
        pipe = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = self.spawn(*args, stdin=pipe, **kwargs)
        data = stdin.encode("utf-8") if isinstance(stdin, str) else stdin
        try:
            out, err = process.communicate(data, timeout)
        except subprocess.TimeoutExpired as late:
            kill_group(process)
            raise AssertionError(f"{timeout} s passed; {late.stdout!r}, {late.stderr!r}") from None
        return Result(process.returncode, *(text.decode("utf-8", "replace") for text in (out, err)))

    def close(self):
        for process in self.started:
            kill_group(process)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    stream and stream.close()
