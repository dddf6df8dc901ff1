"""The shell: commands that are stopped whole, cost little, see no secrets and write where they may."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import OpenTerminal, Run, Spawn
from ollama_replies import shell
from ollama_server import OllamaServer, Reply
from program import START, start_after
from terminal import Terminal

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="needs a POSIX shell, sessions and signals"
)
landlock = pytest.mark.skipif(
    not mca.landlock_abi(), reason="this kernel has no Landlock to confine commands with"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

Agent = Callable[..., Any]
DONE = "<final>all said</final>"


def result(server: OllamaServer, number: int = -1) -> str:
    """The last result of a command in a prompt."""
    shown = server.prompts[number].rpartition("\n[tool:run_shell]\n")[2]
    return shown.rpartition("\n\nCurrent user request:")[0]


def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{seconds} s passed: {what}"
        time.sleep(0.01)


def pids(root: Path) -> list[int]:
    return [int(word) for word in (root / "pids").read_text().split()]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has fetched."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


def all_gone(root: Path) -> None:
    for pid in pids(root):
        until(lambda pid=pid: not runs(pid), f"process {pid} is still there")  # type: ignore[misc]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def agent(run: Run, server: OllamaServer, root: Path) -> Agent:
    """agent(replies, *args) runs a request to its end with everything allowed."""

    def agent(replies: list[Any], *args: str, **kwargs: Any) -> Any:
        server.script(replies, then=DONE)
        flags = ("--cwd", root, "--host", server.url, "--approval", "auto", *args)
        return run(*flags, *([] if "stdin" in kwargs else ["go"]), **kwargs)

    return agent


# What a command gets, and what comes back


def test_a_command_has_a_session_of_its_own_and_no_terminal(
    root: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    look = (
        "(: > /dev/tty) 2> /dev/null && echo terminal || echo none; tty;"
        'python3 -c "import os; print(os.getsid(0), os.getppid() if os.fork() else 0)"'
    )
    server.script([shell(look)])
    with terminal(
        *("--cwd", root, "--host", server.url, "--approval", "auto", "--sandbox", "off", "go")
    ) as term:
        term.expect("script exhausted")
        assert term.wait() == 0
        said = result(server)
        assert "none\nnot a tty" in said and f"{term.process.pid} " not in said


def test_a_command_has_no_input_and_leaves_the_next_request_alone(
    server: OllamaServer, agent: Agent
) -> None:
    agent([shell("cat; read line; echo $?:$line")], stdin="go\nthe next request\n")
    assert "1:\n" in result(server, 1) + "\n" and "the next request" not in server.prompts[1]
    assert "[user]\nthe next request" in server.prompts[2]


ENDS = {
    "true": ("exit_code: 0", "(no output)"),
    "echo out; echo err >&2; exit 3": ("exit_code: 3", "out\nerr"),
    "no_such_program_here": ("exit_code: 127", "not found"),
    "kill -9 $$": ("exit_code: -9", "(no output)"),
    "pwd": ("exit_code: 0", "/work"),
    r"printf 'a\377b\r\nc\n'": ("exit_code: 0", "a\ufffdb\nc"),
}


def test_exit_code_duration_and_output_come_back(server: OllamaServer, agent: Agent) -> None:
    done = agent([shell(command) for command in ENDS], "--max-steps", "20")
    for number, (command, (code, output)) in enumerate(ENDS.items(), 1):
        first, _, rest = result(server, number).partition("\n")
        assert re.fullmatch(rf"{code} \(\d+\.\d s\)", first) and output in rest, command
    assert "exit 3" in done.err and "exit 127" in done.err


SECRETS = [
    *("DOCKER_AUTH_CONFIG", "AZURE_STORAGE_CONNECTION_STRING", "SLACK_WEBHOOK_URL", "APP_KEYS"),
    *("GITHUB_TOKEN", "HF_TOKEN", "OPENAI_API_KEY", "apikey", "AWS_SECRET_ACCESS_KEY", "MYSQL_PWD"),
    *("AWS_SESSION_TOKEN", "DB_PASSWORD", "PGPASSWORD", "GPG_PASSPHRASE", "SSH_PRIVATE_KEY"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET", "STRIPE_KEY", "GITLAB_PAT"),
    *("DJANGO_SECRET", "npm_config__authToken", "MY_ACCESS_KEY_ID"),
]
HARMLESS = ["EDITOR", "KEYBOARD", "MONKEYS", "TOKENIZERS_PARALLELISM", "VIRTUAL_ENV", "PATHS"]


def test_secrets_in_the_environment_are_not_passed_on_unless_named(
    server: OllamaServer, agent: Agent
) -> None:
    env = {name: f"value-of-{name.lower()}-end" for name in SECRETS + HARMLESS}
    env |= {"REDIS_URL": "redis://:pass@host/0", "PIP_INDEX_URL": "https://me:pass@host/simple"}
    kept = ["HF_TOKEN", "DB_PASSWORD"]
    agent([shell("env")], *(f"--keep-env={name}" for name in kept), env=env)
    passed = [name for name in env if env[name] in result(server)]
    assert passed == [*kept, *HARMLESS]
    assert "pass@host" not in result(server)


# Stopped as a whole


def test_a_timeout_stops_the_whole_group_and_keeps_the_output_so_far(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    stubborn = "(trap '' TERM; sleep 100; sleep 100) & echo $! >> pids"
    command = f"trap '' TERM; echo begun; {stubborn}; sleep 100 & echo $! $$ >> pids; wait; wait"
    done = agent([shell(command, timeout=1)])
    assert done.code == 0 and len(pids(root)) == 3
    all_gone(root)
    assert "begun" in result(server) and "timeout of 1 s" in result(server)
    assert result(server).startswith("error: ")


def test_a_forgotten_child_in_the_background_ends_with_its_command(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    (root / "pids").touch()
    agent([shell("(trap '' TERM; sleep 100) & echo $! >> pids; echo begun")])
    assert result(server).startswith("exit_code: 0") and "begun" in result(server)
    assert pids(root)
    all_gone(root)


# A daemon with a daemon of its own: two sessions that nobody waits for.
DAEMONS = """python3 -c "
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        os.setsid()
    print(os.getpid(), file=open('pids', 'a'))
    time.sleep(100)
"; until [ $(wc -l < pids) = 2 ]; do sleep 0.01; done; echo begun; touch started"""


@pytest.mark.parametrize("then", ["", "; sleep 100"], ids=["end", "timeout"])
def test_a_child_in_a_session_of_its_own_holds_nobody_up_and_does_not_outlive_its_command(
    root: Path, server: OllamaServer, agent: Agent, then: str
) -> None:
    (root / "pids").touch()
    done = agent([shell(DAEMONS + then, timeout=2 if then else 60)], timeout=20)
    assert done.code == 0 and "begun" in result(server)
    if sys.platform == "linux":
        all_gone(root)


@linux
@pytest.mark.parametrize("how", ["one Ctrl-C", "two Ctrl-C", "SIGTERM"])
def test_a_child_in_a_session_of_its_own_does_not_outlive_an_interruption(
    root: Path, server: OllamaServer, terminal: OpenTerminal, how: str
) -> None:
    (root / "pids").touch()
    stay = "; trap 'touch asked' TERM; while :; do sleep 100 & wait; done"
    server.script([shell(DAEMONS + stay, timeout=100), DONE])
    with terminal("--cwd", root, "--host", server.url, "--approval", "auto") as term:
        term.expect("> ")
        term.line("go")
        until((root / "started").exists, "the command has not started")
        if how == "SIGTERM":
            term.process.terminate()
            assert term.wait() == 143
        else:
            term.ctrl_c()
            if how == "two Ctrl-C":
                until((root / "asked").exists, "the command was not asked to stop")
                term.send("\x03")
            term.expect("interrupted")
            term.expect("> ")
        all_gone(root)


@linux
def test_other_children_of_the_program_are_left_alone(root: Path) -> None:
    class Agent:
        keep_env: Any = ()
        confine = None

    with subprocess.Popen(["sleep", "100"]) as other:
        before = mca.children()
        command = mca.Command("echo begun; setsid sleep 100 & echo $! > pids", 20, root)
        assert "begun" in command.perform(Agent()).text  # type: ignore[arg-type]
        assert mca.children() == before and runs(other.pid)
        all_gone(root)
        other.kill()


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
unit = 1 if sys.platform == "darwin" else 1024
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
sys.exit(code)
"""


def test_endless_output_costs_a_few_megabytes(server: OllamaServer, agent: Agent) -> None:
    peaks = []
    endless, long_lines = "yes", "for n in $(seq 2000); do printf '%080000d' 1; done"
    for command in ("echo y", endless, long_lines):
        argv = [sys.executable, "-c", MEASURE, *START]
        done = agent([shell(command, timeout=1 if command == endless else 60)], argv=argv)
        peaks.append(int(done.out.rpartition("peak ")[2]))
        assert ("timeout of 1 s" in result(server)) == (command == endless)
        assert ("left out" in result(server)) == (command != "echo y")
    assert max(peaks) < peaks[0] + 10_000_000, peaks


@linux
def test_a_command_that_runs_unasked_has_bounded_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mca.UNASKED_BYTES == 1_000_000_000
    monkeypatch.setattr(mca, "UNASKED_BYTES", 100_000_000)  # as good, and sooner reached
    with open(root / "big", "wb") as file:
        file.truncate(300_000_000)
    argv = mca.read_only_argv("sort big", root)

    class Agent:
        keep_env: Any = ()
        confine = staticmethod(mca.choose_sandbox("on", []))

    assert argv and "exit_code: 2" in mca.Command("sort big", 20, root, argv).perform(Agent()).text  # type: ignore[arg-type]


# Ctrl-C


@pytest.mark.parametrize("hang_after", [None, 14], ids=["before the reply", "within it"])
def test_ctrl_c_while_the_model_works_cancels_the_generation_and_brings_the_prompt_back(
    root: Path, server: OllamaServer, terminal: OpenTerminal, hang_after: int | None
) -> None:
    server.script([Reply("<final>well, I think", hang=60, hang_after=hang_after), DONE])
    with terminal("--cwd", root, "--host", server.url) as term:
        term.expect("> ")
        term.line("the first request")
        server.wait_for(1)
        if hang_after:
            term.expect("well")
        term.ctrl_c()
        term.expect("> ")
        server.wait_for(cancelled=1)
        term.line("the second request")
        term.expect("all said")
        term.expect("> ")
        term.line("/exit")
        assert term.wait() == 0
    assert "the first request" in server.prompts[1]
    assert "interrupted by the user" in server.prompts[1]


def interrupt(term: Terminal, root: Path) -> None:
    """Press Ctrl-C as soon as the command of a request has made the file `started`."""
    term.expect("> ")
    term.line("go")
    until((root / "started").exists, "the command has not started")
    term.ctrl_c()


def test_ctrl_c_while_a_command_runs_stops_its_group_and_keeps_its_output(
    root: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    command = "printf be%s gun; (trap '' TERM; sleep 100) & echo $! $$ > pids; touch started; wait"
    server.script([shell(command, timeout=100), DONE])
    with terminal("--cwd", root, "--host", server.url, "--approval", "auto") as term:
        interrupt(term, root)
        term.expect("interrupted")
        term.expect("> ")
        all_gone(root)
        term.line("and now?")
        term.expect("all said")
    assert "begun" in server.prompts[1] and "interrupted by the user" in server.prompts[1]


def test_a_second_ctrl_c_while_a_command_is_being_stopped_leaves_nothing_running(
    root: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    wait = "while :; do sleep 100 & wait; done"
    command = f"trap 'touch asked' TERM; echo $$ > pids; touch started; {wait}"
    server.script([shell(command, timeout=100), DONE])
    with terminal("--cwd", root, "--host", server.url, "--approval", "auto") as term:
        interrupt(term, root)
        until((root / "asked").exists, "the command was not asked to stop")
        term.send("\x03")
        term.expect("interrupted")
        term.expect("> ")
        all_gone(root)
        term.line("and now?")
        term.expect("all said")
    assert "interrupted by the user" in server.prompts[1]


def test_ctrl_c_ends_a_one_shot_run_with_130_and_saves_what_happened(
    root: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    server.script([shell("printf be%s gun; echo $$ > pids; touch started; sleep 100", timeout=100)])
    with terminal(
        *("--cwd", root, "--host", server.url, "--approval", "auto", "the only request")
    ) as term:
        until((root / "started").exists, "the command has not started")
        term.ctrl_c()
        assert term.wait() == 130
        assert "Traceback" not in term.plain
    all_gone(root)
    assert ["the only request", "begun"] == [
        next(word for word in ("the only request", "begun") if word in event["content"])
        for event in history(root)[:2]
    ]


def history(root: Path) -> list[dict[str, Any]]:
    store = mca.SessionStore(root / ".mini-coding-agent" / "sessions")
    events: list[dict[str, Any]] = store.load(store.find("latest"))["history"]
    return events


def test_ctrl_c_twice_at_the_empty_prompt_leaves_with_130(
    root: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    with terminal("--cwd", root, "--host", server.url) as term:
        term.expect("> ")
        term.send("half a request")
        term.ctrl_c()
        term.expect("> ")
        term.line("/session")
        term.expect("sessions/")
        term.expect("> ")
    with terminal("--cwd", root, "--host", server.url) as term:
        term.expect("> ")
        term.ctrl_c()
        term.expect("once more")
        term.expect("> ")
        term.ctrl_c()
        assert term.wait() == 130
        assert "Traceback" not in term.plain


# Signals

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)] if os.name != "nt" else []


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_a_command_runs_stops_its_group_and_saves_the_session(
    root: Path, server: OllamaServer, spawn: Spawn, number: int, code: int
) -> None:
    stubborn = "(trap '' TERM HUP; sleep 100) & echo $! $$ > pids; touch started; wait"
    server.script([shell(stubborn, timeout=100)])
    process = spawn("--cwd", root, "--host", server.url, "--approval", "auto", "my request")
    until((root / "started").exists, "the command has not started")
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code and b"Traceback" not in err
    all_gone(root)
    assert history(root)[0]["content"] == "my request"


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_the_model_works_cancels_the_generation(
    root: Path, server: OllamaServer, spawn: Spawn, number: int, code: int
) -> None:
    server.script([Reply("<final>well", hang=60)])
    process = spawn("--cwd", root, "--host", server.url, "my request")
    server.wait_for(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code and b"Traceback" not in err
    server.wait_for(cancelled=1)
    assert history(root)[0]["content"] == "my request"


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("where", ["prompt", "question"])
def test_a_signal_while_the_human_is_waited_for_ends_the_program(
    root: Path, server: OllamaServer, terminal: OpenTerminal, where: str, number: int, code: int
) -> None:
    server.script([shell("touch marker")])
    with terminal("--cwd", root, "--host", server.url) as term:
        term.expect("> ")
        if where == "question":
            term.line("go")
            term.expect("Allow?")
        # Python's input() loses a signal that comes between its prompt and its read.
        state = Path(f"/proc/{term.process.pid}/stat")
        until(lambda: not state.exists() or ") S " in state.read_text(), "the program is busy")
        term.process.send_signal(number)
        assert term.wait() == code
        assert "Traceback" not in term.plain
    assert not (root / "marker").exists()


# Confinement by the kernel

OUTSIDE = "echo x > ../out/file"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "more").mkdir()
    return tmp_path / "out"


@landlock
@pytest.mark.parametrize("mode", [[], ["--sandbox", "auto"], ["--sandbox", "on"]])
def test_a_command_writes_inside_and_not_outside_and_the_failure_names_the_flags(
    root: Path, out: Path, server: OllamaServer, agent: Agent, mode: list[str]
) -> None:
    ordinary = (
        "mkdir -p a/b && echo x > a/b/file && mv a/b/file a/moved && t=$(mktemp) && echo x > $t &&"
        " : > /dev/null && : > /dev/zero && : > /dev/shm/mca-$$ && rm /dev/shm/mca-$$ &&"
        ' python3 -c "import os; os.write(os.openpty()[1], bytes(1))"'
    )
    agent([shell(ordinary), shell(OUTSIDE), shell("cat missing")], *mode)
    assert (root / "a" / "moved").exists() and result(server, 1).startswith("exit_code: 0")
    assert not [*out.iterdir()] and "--sandbox" not in result(server, 1)
    assert not result(server, 2).startswith("exit_code: 0")
    assert "--allow-write" in result(server, 2) and "--sandbox" in result(server, 2)
    assert "--allow-write" not in result(server, 3)


@landlock
def test_more_folders_may_be_opened_for_writing(
    out: Path, server: OllamaServer, agent: Agent
) -> None:
    more = out.parent / "more"
    replies = [shell(OUTSIDE), shell("echo x > ../more/file"), shell("echo x > ../neither")]
    agent(replies, "--allow-write", str(out), "--allow-write", str(more))
    assert (out / "file").exists() and (more / "file").exists()
    assert not (out.parent / "neither").exists()


@landlock
def test_a_python_program_that_fails_under_it_is_told_the_flags_too(
    out: Path, server: OllamaServer, agent: Agent
) -> None:
    agent([shell("python3 -c \"open('../out/file', 'w')\"")])
    assert "--allow-write" in result(server) and not [*out.iterdir()]


def test_without_the_sandbox_a_command_writes_where_its_user_may(
    out: Path, server: OllamaServer, agent: Agent
) -> None:
    done = agent([shell(OUTSIDE)], "--sandbox", "off")
    assert (out / "file").exists() and "confined" not in done.err


# Draws on the terminal of the agent, then types a request and a yes into it.
FORGE = """
import fcntl, os, sys
for flags in (os.O_WRONLY, os.O_RDONLY):
    try:
        tty = os.open(sys.argv[1], flags | os.O_NOCTTY)
        if flags == os.O_WRONLY:
            os.write(tty, b"FORGED" + b" LINE")
        else:
            [fcntl.ioctl(tty, 0x5412, bytes([key])) for key in b"typed by the command\\n"]
    except OSError as error:
        print(error)
"""


@landlock
@pytest.mark.parametrize("flags", [[], ["--sandbox", "off"]], ids=["confined", "free"])
def test_a_command_neither_draws_on_the_humans_terminal_nor_types_into_it(
    root: Path, server: OllamaServer, terminal: OpenTerminal, flags: list[str]
) -> None:
    (root / "forge.py").write_text(FORGE)
    with terminal("--cwd", root, "--host", server.url, "--approval", "auto", *flags) as term:
        name = os.readlink(f"/proc/{term.process.pid}/fd/0")
        server.script([shell(f"python3 forge.py {name}")], then=DONE)
        term.expect("> ")
        term.line("go")
        term.expect("all said")
        assert ("FORGED LINE" in term.raw) == bool(flags)
        if not flags and mca.landlock_abi() >= 5:
            term.expect("> ")
            term.line("the human's request")
            term.expect("all said")
            assert result(server, 1).count("Permission denied") == 2
            assert "typed by the command" not in term.raw + server.prompts[-1]


NO_LANDLOCK = """
import ctypes, struct
# The kernel answers "no such system call" to 444: a filter for seccomp, in four instructions.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, program):
    sys.exit("no seccomp")
"""


@linux
def test_without_landlock_auto_says_so_once_and_on_refuses_to_start(
    out: Path, server: OllamaServer, agent: Agent
) -> None:
    argv = start_after(NO_LANDLOCK)
    done = agent([shell(OUTSIDE), shell("echo two")], argv=argv)
    if "no seccomp" in done.err:
        pytest.skip("this kernel has no seccomp to hide Landlock with")
    assert done.code == 0 and (out / "file").exists()
    assert done.err.count("not confined") == 1 and "--sandbox" in done.err
    prompts = len(server.prompts)
    done = agent([shell("echo x > started")], "--sandbox", "on", argv=argv)
    assert done.code == 2 and done.err.count("\n") == 1 and "Landlock" in done.err
    assert len(server.prompts) == prompts
    quiet = agent([shell("echo two")], "--sandbox", "off", argv=argv)
    assert "confined" not in quiet.err
