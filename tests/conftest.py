"""Fixtures: the program as its users run it, a server to talk to, a repository to work in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest

from ollama_server import OllamaServer
from program import PROGRAM, Processes, Result, changed, clean_env, command_of, kill_marked
from terminal import Terminal

sys.path.insert(0, str(PROGRAM.parent))

import mini_coding_agent as mca

FILES = {
    "README.md": "# Sample\n\nA calculator.\n",
    "AGENTS.md": "Keep functions short.\n",
    ".gitignore": "*.log\nbuild/\n",
    "calc.py": "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n",
    "pkg/__init__.py": "",
    "pkg/util.py": 'def greet(name):\n    return f"hello {name}"\n',
}


Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
OpenTerminal = Callable[..., Terminal]
Git = Callable[..., str]
Make = Callable[..., mca.MiniAgent]
Agent = Callable[..., Result]
DONE = "<final>done</final>"


@contextlib.contextmanager
def within(seconds):
    """Raise AssertionError when what is inside takes longer."""

    def late(*_):
        raise AssertionError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tail(prompt):
    """The last paragraph of a prompt: where there is one, what is next."""
    return prompt.rstrip().rpartition("\n\n")[2]


def events(root, role="tool"):
    """What the sessions of a folder hold, without the files that were attached."""
    files = sorted(root.glob(".mini-coding-agent/sessions/*.json"))
    history = [e for file in files for e in json.loads(file.read_text("utf-8"))["history"]]
    return [e for e in history if e["role"] == role]


def commands(root):
    return [e["args"]["command"] for e in events(root) if e["name"] == "run_shell"]


@pytest.fixture
def agent_env(tmp_path):
    """A clean environment: HOME and TMPDIR below tmp_path, nothing of the user's settings.

    At the end of the test every process that inherited it is killed (where /proc tells; elsewhere
    `run`, `spawn` and `terminal` kill their groups).
    """
    home, scratch, mark = tmp_path / "home", tmp_path / "tmp", uuid.uuid4().hex
    home.mkdir()
    scratch.mkdir()
    yield clean_env(home, scratch, mark)
    kill_marked(mark)


@pytest.fixture
def server():
    with OllamaServer() as running:
        yield running


@pytest.fixture
def git(agent_env):
    """git(*args, cwd) -> its output; identity and date are fixed."""
    who = {"NAME": "Test", "EMAIL": "test@example.org", "DATE": "2026-01-02T03:04:05+0000"}
    identity = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}

    def git(*args, cwd):
        argv, env = ["git", *args], agent_env | identity
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    return git


def write_files(root, files=FILES):
    """The folder, with these files in it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


@pytest.fixture
def repo(tmp_path):
    """A folder with FILES in it, without git."""
    return write_files(tmp_path / "repo")


@pytest.fixture
def git_repo(repo, git):
    """The folder `repo` as a git repository: on branch main, with FILES in one commit."""
    git("init", "-q", cwd=repo)
    git("symbolic-ref", "HEAD", "refs/heads/main", cwd=repo)
    git("add", ".", cwd=repo)
    git("commit", "-q", "-m", "First commit", cwd=repo)
    return repo


@pytest.fixture
def processes(agent_env, tmp_path):
    started = Processes(agent_env, tmp_path)
    yield started
    started.close()


@pytest.fixture
def spawn(processes):
    """spawn(*args, env={}, cwd=tmp_path, stdin=DEVNULL, program=None, argv=None) -> Popen."""
    return processes.spawn


@pytest.fixture
def run(processes):
    """run(*args, stdin=None, timeout=30, env, cwd, program, argv) -> Result(code, out, err)."""
    return processes.run


@pytest.fixture
def agent(run_here, server, repo):
    """agent(replies, *args, stdin="") runs main() at `repo`; DONE follows the replies."""

    def agent(replies, *args, **kwargs):
        server.script(replies, then=DONE)
        return run_here("--cwd", repo, "--host", server.url, *args, **kwargs)

    return agent


@pytest.fixture
def do(agent):
    """do(request, *replies, flags=()) -> the result of a request where everything is allowed."""

    def do(request, *replies, flags=()):
        return agent(replies, "--approval", "auto", *flags, request)

    return do


@pytest.fixture
def make(repo):
    """make(*replies, **settings) -> an agent in this process, at `repo`, that may do everything.

    Its model writes the replies and then DONE, three times.
    """

    def make(*replies, **settings):
        settings = {"approval_policy": "auto", "max_steps": 30} | settings
        return mca.MiniAgent(
            model_client=mca.FakeModelClient([*replies, *[DONE] * 3]),
            workspace=mca.WorkspaceContext.build(repo),
            session_store=mca.SessionStore(repo / ".mini-coding-agent" / "sessions"), **settings,
        )  # fmt: skip

    return make


@pytest.fixture
def run_here(agent_env, tmp_path, monkeypatch, capsys):
    """As `run`, but main() in this process: faster, for what no signal and no terminal changes."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def run_here(*args, stdin="", env=None, cwd=tmp_path):
        (tmp_path / "stdin").write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
        handlers = {number: signal.getsignal(number) for number in signals}
        capsys.readouterr()
        with (tmp_path / "stdin").open(encoding="utf-8") as data, monkeypatch.context() as patch:
            for name in [*os.environ]:
                patch.delenv(name)
            for name, value in changed(agent_env, env).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", data)
            patch.chdir(cwd)
            try:
                code = mca.main([*map(str, args)])
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Result(code, *capsys.readouterr())

    return run_here


@pytest.fixture
def terminal(agent_env, tmp_path):
    """terminal(*args, env={}, cwd=tmp_path, rows=24, cols=80, program=None) -> Terminal."""
    with contextlib.ExitStack() as stack:

        def open_terminal(*args, env=None, cwd=None, rows=24, cols=80, program=None):
            clean = changed({**agent_env, "TERM": "xterm-256color"}, env)
            argv = [*command_of(program), *args]
            return stack.enter_context(Terminal(argv, cwd or tmp_path, clean, rows, cols))

        yield open_terminal
