"""Confinement by the kernel: what a command can and cannot do, tried with real commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mini_coding_agent as mca

ABI = mca.landlock_abi()
pytestmark = pytest.mark.skipif(
    not ABI, reason="this kernel has no Landlock to confine commands with"
)


@pytest.fixture
def place(tmp_path):
    """A workspace, a folder outside with one file in it, and a temporary folder."""
    for name in ("ws", "out", "temp"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    (tmp_path / "ws" / "link").symlink_to(tmp_path / "out")
    return tmp_path


def run(place, command, writable=("ws", "temp"), abi=ABI, wait=20):
    """Return (exit code, output) of a shell command in the workspace, as the agent starts it."""
    folders = None if writable is None else [place / name for name in writable]
    env = {**os.environ, "TMPDIR": str(place / "temp"), "HOME": str(place / "temp")}
    with mca.confined(folders, abi) if abi else contextlib.nullcontext() as enter:
        child = subprocess.Popen(
            command, shell=True, cwd=place / "ws", env=env, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, preexec_fn=enter,
        )  # fmt: skip
    output, _ = child.communicate(timeout=wait)
    return child.returncode, output


ESCAPES = {
    "create": "echo x > {out}/new.txt",
    "create through a link": "echo x > link/new.txt",
    "create through a link made just now": "ln -s {out} l2 && echo x > l2/new.txt",
    "create below /proc/self/root": "echo x > /proc/self/root{out}/new.txt",
    "append": "echo x >> {out}/old.txt",
    "overwrite": "echo x > {out}/old.txt",
    "truncate": "truncate -s 0 {out}/old.txt",
    "truncate by the system call": "{python} -c \"import os; os.truncate('{out}/old.txt', 0)\"",
    "truncate while opening for reading": (
        "{python} -c \"import os; os.open('{out}/old.txt', os.O_RDONLY | os.O_TRUNC)\""
    ),
    "remove": "rm -f {out}/old.txt",
    "make a folder": "mkdir {out}/d",
    "make a FIFO": "mkfifo {out}/f",
    "make a socket": (
        "{python} -c \"import socket; socket.socket(socket.AF_UNIX).bind('{out}/s')\""
    ),
    "hard link out": "echo x > a && ln a {out}/a",
    "hard link in, then write": "ln {out}/old.txt here && echo x > here",
    "rename out": "echo x > a && mv a {out}/a",
    "exchange the folder": "mv {out} {out}2",
    "detached grandchild": "setsid sh -c 'sleep 0.1; echo x > {out}/new.txt' & wait; false",
    "double fork": "(sh -c '(sleep 0.1; echo x > {out}/new.txt) &'); sleep 0.3; false",
    "a new user namespace": "unshare -Ur sh -c 'echo x > {out}/new.txt'",
    "undo by a second ruleset": (
        '{python} -c "import mini_coding_agent as m, pathlib, subprocess\n'
        "with m.confined([pathlib.Path('/')], m.landlock_abi()) as enter:\n"
        " subprocess.run('echo x > {out}/new.txt', shell=True, preexec_fn=enter, check=True)\""
    ),
}


def snapshot(folder):
    return {p.name: p.is_file() and p.read_text() for p in folder.iterdir()}


@pytest.mark.parametrize("how", ESCAPES)
def test_nothing_outside_the_given_folders_can_be_changed(place, how, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(mca.__file__).parent), *sys.path]))
    if "truncate" in how and ABI < 3:
        pytest.skip("this kernel's Landlock (before ABI 3) knows no truncating")
    command = ESCAPES[how].format(out=place / "out", python=sys.executable)
    before = snapshot(place / "out")
    code, output = run(place, command)
    assert snapshot(place / "out") == before, output
    assert code != 0, output


@pytest.mark.parametrize("how", ESCAPES)
def test_the_same_commands_do_change_something_without_confinement(place, how, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(mca.__file__).parent), *sys.path]))
    command = ESCAPES[how].format(out=place / "out", python=sys.executable)
    before = snapshot(place / "out")
    _, output = run(place, command, abi=0)
    if "namespace" in how and "unshare" in output:
        pytest.skip("user namespaces are not available here")
    assert not (place / "out").exists() or snapshot(place / "out") != before, output


INSIDE = {
    "write": "echo x > a && cat a",
    "folders": "mkdir -p d/e && mv d/e f && rmdir d f",
    "rename between folders": "mkdir d e && echo x > d/a && mv d/a e/a && ln e/a d/b && rm e/a",
    "links, FIFOs": "ln -s /etc/passwd l && mkfifo f && rm l f",
    "devices": "echo x > /dev/null && head -c 1 /dev/zero && ! echo x > /dev/full",
    "standard streams by name": "echo x > /dev/stdout && echo y > /dev/stderr",
    "shared memory": "echo x > /dev/shm/mca-test-$$ && rm /dev/shm/mca-test-$$",
    "temporary files": 'f=$(mktemp) && echo x > "$f" && rm "$f"',
    "here documents": "cat <<E\nx\nE",
    "reading outside": "cat /etc/passwd ../out/old.txt > copy",
    "semaphores": '{python} -c "import multiprocessing as m; m.Lock()"',
    "tests": (
        "printf 'import tempfile, unittest\\nclass T(unittest.TestCase):\\n def test(self):"
        "\\n  tempfile.TemporaryFile().close()\\n' > test_x.py && {python} -m unittest"
    ),
    "a git repository": (
        "git init -q . && echo x > a && git add a && "
        "git -c user.name=a -c user.email=a@b commit -qm x && git checkout -qb y && "
        "git gc -q && git stash list && git status --porcelain"
    ),
    "a virtual environment": "{python} -m venv --without-pip env && env/bin/python -c 'print(1)'",
}


PTYS = {
    "openpty": (
        '{python} -c "import os, pty; m, s = pty.openpty(); '
        'os.close(os.open(os.ttyname(s), os.O_RDWR | os.O_NOCTTY))"'
    ),
    "spawn": "{python} -c \"import pty; pty.spawn(['tty'])\"",
    "script": "script -qec 'stty -a' /dev/null",
}


@pytest.mark.parametrize("what", PTYS)
@pytest.mark.parametrize("given", [True, False])
def test_pseudo_terminals_work_where_their_folder_is_given(place, what, given):
    if what == "script" and not shutil.which("script"):
        pytest.skip("script is not installed")
    writable = ("ws", "/dev/pts") if given else ("ws",)
    code, output = run(place, PTYS[what].format(python=sys.executable), writable)
    assert (code == 0) == given, output
    assert given or mca.DENIED.search(output)


@pytest.mark.skipif(ABI < 5, reason="this kernel's Landlock (before ABI 5) knows no ioctl")
def test_a_terminal_opened_for_reading_cannot_be_typed_into(place):
    master, slave = os.openpty()
    try:
        read = f"import fcntl, os; t = os.open({os.ttyname(slave)!r}, os.O_RDONLY | os.O_NOCTTY)"
        ask = f"{read}; fcntl.ioctl(t, {0x5412}, b'y')"  # TIOCSTI
        code, output = run(place, f'{sys.executable} -c "{ask}"')
        assert code != 0 and "PermissionError" in output
        assert run(place, f'{sys.executable} -c "{read}"')[0] == 0
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("what", INSIDE)
def test_ordinary_work_inside_goes_on(place, what):
    if "git" in what and not shutil.which("git"):
        pytest.skip("git is not installed")
    if "between" in what and ABI < 2:
        pytest.skip("this kernel's Landlock (ABI 1) forbids moving files between folders")
    code, output = run(place, INSIDE[what].format(python=sys.executable), wait=60)
    assert code == 0, output


def test_a_folder_given_by_a_link_is_writable_at_its_target(place):
    (place / "temp-link").symlink_to(place / "temp")
    code, output = run(place, f"echo x > {place}/temp/a", writable=("ws", "temp-link"))
    assert code == 0, output


def test_a_single_file_may_be_given(place):
    code, output = run(
        place, "echo x > ../out/old.txt && ! echo x > ../out/b", ("ws", "out/old.txt")
    )
    assert code == 0, output
    assert snapshot(place / "out") == {"old.txt": "x\n"}


@pytest.mark.parametrize(
    "command", ["echo x > a", "mkdir d", "echo x > $TMPDIR/a", "rm keep", "mv keep other",
                "echo x > /dev/shm/mca-x", "echo x >> keep", "ln keep two", "truncate -s0 keep",
                "git init -q sub"],
)  # fmt: skip
def test_a_command_that_runs_unasked_writes_nothing(place, command):
    (place / "ws" / "keep").write_text("kept")
    code, output = run(place, command, writable=None)
    assert code != 0, output
    assert snapshot(place / "ws").keys() == {"keep", "link"}
    assert (place / "ws" / "keep").read_text() == "kept"
    assert not list((place / "temp").iterdir())


@pytest.mark.parametrize("command", ["ls -la", "cat keep", "grep -rn kept .", "echo x > /dev/null",
                                     "git status", "git log --oneline", "git diff"])  # fmt: skip
def test_a_command_that_runs_unasked_reads_what_it_likes(place, command):
    (place / "ws" / "keep").write_text("kept")
    subprocess.run(
        "git init -q . && git add keep && git -c user.name=a -c user.email=a@b commit -qm x",
        shell=True, cwd=place / "ws", check=True,
    )  # fmt: skip
    code, output = run(place, command, writable=None)
    assert code == 0, output


CONNECT = "{python} -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 3)\""


@pytest.mark.skipif(ABI < 4, reason="this kernel's Landlock (before ABI 4) knows no network")
@pytest.mark.parametrize("unasked", [True, False])
def test_only_an_approved_command_connects_by_tcp(place, unasked):
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = CONNECT.format(python=sys.executable, port=server.getsockname()[1])
        code, output = run(place, command, writable=None if unasked else ("ws",))
    assert (code != 0) == unasked, output
    assert ("PermissionError" in output) == unasked


@pytest.mark.skipif(ABI < 4, reason="this kernel's Landlock (before ABI 4) knows no network")
def test_a_command_that_runs_unasked_cannot_listen(place):
    bind = f"{sys.executable} -c \"import socket; socket.create_server(('127.0.0.1', 0))\""
    free = f"{sys.executable} -c \"import socket; socket.create_server(('127.0.0.1', 18999))\""
    assert run(place, free, writable=None)[0] != 0
    assert run(place, bind, writable=("ws",))[0] == 0


@pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock (before ABI 6) knows no signals")
def test_a_command_that_runs_unasked_cannot_signal_the_agent(place):
    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    try:
        assert run(place, f"kill -USR1 {os.getpid()}", writable=None)[0] != 0
        assert not got
        assert run(place, f"kill -USR1 {os.getpid()}")[0] == 0
        assert got
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock (before ABI 6) knows no sockets")
def test_a_command_that_runs_unasked_cannot_reach_abstract_sockets(place):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0mca-{os.getpid()}")
        server.listen()
        name = server.getsockname().decode().replace("\0", "\\0")
        command = f"{sys.executable} -c \"import socket; socket.socket(1).connect('{name}')\""
        assert run(place, command, writable=None)[0] != 0
        assert run(place, command)[0] == 0


def test_commands_leak_no_descriptor_and_hand_none_on(place):
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with mca.confined([place / "ws", place / "missing"], ABI):
            pass
    assert run(place, "echo x > a", writable=("ws", "missing"))[0] == 0
    _, output = run(place, "ls -l /proc/self/fd")
    assert "landlock" not in output and "ws" not in output
    assert len(os.listdir("/proc/self/fd")) == count


def test_the_ruleset_is_closed_when_starting_fails(place):
    count = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError), mca.confined([place], ABI) as enter:
        subprocess.Popen(["/does/not/exist"], preexec_fn=enter)
    assert len(os.listdir("/proc/self/fd")) == count


def test_an_error_in_the_child_stops_the_command_and_surfaces(place):
    with mca.confined([place / "ws"], ABI) as enter:
        pass  # the ruleset is closed now
    marker = place / "ws" / "ran"
    with pytest.raises((subprocess.SubprocessError, OSError)):
        subprocess.run(f"touch {marker}", shell=True, preexec_fn=enter, check=False)
    assert not marker.exists()


def test_commands_start_while_other_threads_are_busy(place):
    stop, interval = threading.Event(), sys.getswitchinterval()

    def allocate():
        while not stop.is_set():
            [bytearray(n) for n in range(0, 5000, 50)]

    threads = [threading.Thread(target=allocate) for _ in range(4)]
    sys.setswitchinterval(1e-5)  # else every start waits some hundred milliseconds for its turn
    try:
        for thread in threads:
            thread.start()
        assert [run(place, "true")[0] for _ in range(25)] == [0] * 25
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()


def test_an_ordinary_user_is_confined_as_well(place):
    if os.getuid():
        pytest.skip("only root can become somebody else")
    os.chmod(place, 0o777)
    os.chmod(place / "out", 0o777)
    for folder in place.parents:
        if folder.owner() == "root" and folder != Path("/") and not folder.stat().st_mode & 1:
            os.chmod(folder, folder.stat().st_mode | 0o011)
    with mca.confined([place / "ws"], ABI) as enter:

        def as_nobody():
            os.setgid(65534)
            os.setuid(65534)
            enter()

        command = f"echo x > {place}/out/new.txt"
        free = subprocess.run(command, shell=True, preexec_fn=lambda: os.setuid(65534), check=False)
        (place / "out" / "new.txt").unlink()
        held = subprocess.run(command, shell=True, preexec_fn=as_nobody, check=False)
    assert free.returncode == 0
    assert held.returncode != 0


@pytest.mark.parametrize("abi", range(1, ABI + 1))
def test_what_an_older_kernel_would_be_asked_for_is_accepted_here(place, abi):
    code, output = run(place, "echo x > a && ! echo x > ../out/new.txt", abi=abi)
    assert code == 0, output
    assert run(place, "! echo x > a2", writable=None, abi=abi)[0] == 0
    truncate = f"{sys.executable} -c \"import os; os.truncate('../out/old.txt', 0)\""
    assert (run(place, truncate, abi=abi)[0] == 0) == (abi < 3)


def test_no_landlock_is_reported_where_the_system_call_fails(monkeypatch):
    module = sys.modules[mca.landlock_abi.__module__]
    monkeypatch.setattr(module, "CREATE_RULESET", 4_444)  # ENOSYS
    assert mca.landlock_abi() == 0


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_no_landlock_is_reported_where_there_is_no_such_c_library(monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("ctypes.CDLL", fail)
    assert mca.landlock_abi() == 0
