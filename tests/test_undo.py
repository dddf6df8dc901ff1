"""Nothing lost: what /undo and /diff know, and what happens when nothing can be saved."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import FILES, Run, Spawn
from ollama_replies import call, shell, write
from ollama_server import OllamaServer, Reply
from program import PROGRAM, at_most, without_root

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes, links and commands")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
Agent = Callable[..., Any]
DONE = "<final>all said</final>"
CRLF = b"one\r\ntwo\r\n"
BINARY = bytes(range(256)) * 20


def patch(path: str, old: str, new: str) -> str:
    return call("patch_file", path=path, old_text=old, new_text=new)


def tree(root: Path) -> dict[str, Any]:
    """Every path below a folder, but for the agent's state, its mode and the hash of its bytes."""
    found = {}
    for path in root.rglob("*"):
        if ".mini-coding-agent" not in path.parts:
            mode = path.lstat().st_mode
            data = path.read_bytes() if stat.S_ISREG(mode) else str(path).encode()
            found[str(path.relative_to(root))] = (mode, hashlib.sha256(data).hexdigest())
    return found


def sessions(root: Path) -> dict[str, Any]:
    files = (root / ".mini-coding-agent" / "sessions").glob("*.json")
    return {file.stem: json.loads(file.read_bytes()) for file in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The sample files without git, one with CRLF, one without text and one that can be run."""
    root = tmp_path / "work"
    files = {name: text.encode() for name, text in FILES.items()}
    files |= {"crlf.txt": CRLF, "data.bin": BINARY, "run.sh": b"#!/bin/sh\nexit 0\n"}
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "run.sh").chmod(0o755)
    return root


@pytest.fixture
def agent(run: Run, run_here: Run, server: OllamaServer, root: Path) -> Agent:
    """agent(replies, *lines, flags=()) types the lines into the program."""

    def agent(replies: list[Any], *lines: str, flags: Any = (), **kwargs: Any) -> Any:
        server.script(replies, then=DONE)
        room = ("--max-steps", "40", "--num-ctx", "120000", "--max-new-tokens", "60000")
        where = ("--cwd", root, "--host", server.url, "--approval", "auto", *room)
        start = run if "argv" in kwargs else run_here
        return start(*where, *flags, stdin="".join(f"{line}\n" for line in lines), **kwargs)

    return agent


@pytest.fixture
def local(root: Path) -> Any:
    """An agent in this process that may do everything."""
    return mca.MiniAgent(
        model_client=mca.FakeModelClient([]), approval_policy="auto", max_steps=40,
        workspace=mca.WorkspaceContext(cwd=str(root), repo_root=str(root)),
        session_store=mca.SessionStore(root / ".mini-coding-agent" / "sessions"),
    )  # fmt: skip


# A request and its /undo

CHANGES: dict[str, list[str]] = {
    "a new file": [write("new.txt")],
    "new folders": [write("one/two/three.txt"), write("one/other.txt"), write("one/two/four.txt")],
    "new folders, the outer one first": [write("one/a.txt"), write("one/two/b.txt")],
    "an old file": [write("calc.py", "pass\n")],
    "an emptied file": [write("calc.py", "")],
    "a file with CRLF": [patch("crlf.txt", "two", "2")],
    "a file with CRLF, written anew": [write("crlf.txt", "one\ntwo\n")],
    "a binary file": [write("data.bin", "text\n")],
    "a program": [patch("run.sh", "exit 0", "exit 1")],
    "a file, several times": [write("calc.py", "1\n"), patch("calc.py", "1", "2"), write("calc.py")],
    "a new file, several times": [write("new.txt", "1\n"), write("new.txt", "2\n")],
    "a file that a command changed after us": [write("calc.py"), shell("echo more >> calc.py")],
    "a file that a command deleted after us": [write("calc.py"), shell("rm calc.py")],
    "a new file that a command deleted": [write("a/new.txt"), shell("rm a/new.txt")],
    "a folder that a command deleted": [write("pkg/util.py"), write("pkg/__init__.py"), shell("rm -r pkg")],
    "a mode that a command changed": [patch("run.sh", "exit 0", "exit 1"), shell("chmod 600 run.sh")],
    "a new program": [write("new.sh", "exit 0\n"), shell("chmod 755 new.sh")],
    "failures only": [write("../out.txt"), patch("calc.py", "missing", "x"), write(".git/x")],
}  # fmt: skip


@posix
@pytest.mark.parametrize("name", CHANGES)
def test_undo_brings_every_file_back_byte_for_byte(root: Path, local: Any, name: str) -> None:
    before = tree(root)
    local.model_client = mca.FakeModelClient([*CHANGES[name], DONE])
    local.ask("go")
    assert (tree(root) == before) == (name == "failures only")
    said = mca.run_command(local, "/undo")
    assert tree(root) == before, said
    assert local.session["history"] == []


@posix
def test_undo_takes_back_files_and_conversation_and_names_what_it_does_not_cover(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    before = tree(root)
    replies = [
        "<final>the first answer</final>", write("new/file.txt"), patch("crlf.txt", "one", "1"),
        shell("echo made > made.txt"), shell("ls pkg"), call("read_file", path="calc.py"),
        "<final>the second answer</final>", "<final>the third answer</final>",
    ]  # fmt: skip
    done = agent(replies, "the first request", "the second request", "/undo", "the third request")
    assert done.code == 0
    (root / "made.txt").unlink()
    assert tree(root) == before
    said = done.out.partition("the second answer")[2].partition("the third answer")[0]
    for wanted in ("new/file.txt", "crlf.txt", "echo made > made.txt", "not covered"):
        assert wanted in said
    assert "ls pkg" not in said
    assert "the first answer" in server.prompts[-1] and "the second" not in server.prompts[-1]
    (session,) = sessions(root).values()
    users = [event["content"] for event in session["history"] if event["role"] == "user"]
    assert users == ["the first request", "the third request"] and "made.txt" not in str(session)


def test_undo_can_be_repeated_back_to_the_beginning(root: Path, agent: Agent) -> None:
    before = tree(root)
    replies = [
        write("a.txt", "1\n"), write("calc.py", "1\n"), DONE, write("a.txt", "2\n"), DONE, DONE,
        patch("a.txt", "2", "3"), patch("calc.py", "1", "3"), write("new/b.txt"), DONE,
    ]  # fmt: skip
    done = agent(replies, "one", "two", "three", "four", *["/undo"] * 5)
    assert tree(root) == before and done.code == 0
    assert done.out.count("forgotten") == 4 and "no request to take back" in done.out


def test_undo_works_after_resume(root: Path, agent: Agent) -> None:
    before = tree(root)
    agent([write("a/b.txt"), patch("crlf.txt", "two", "2"), DONE, write("calc.py")], "one", "two")
    middle = tree(root)
    done = agent([], "/undo", flags=["--resume", "latest"])
    assert "put back: calc.py" in done.out and tree(root) != middle
    done = agent([], "/undo", "/diff", flags=["--resume", "latest"])
    assert tree(root) == before and "changed nothing" in done.out


def test_a_file_that_changed_since_is_left_alone_and_named(root: Path, local: Any) -> None:
    local.model_client = mca.FakeModelClient(
        [write("calc.py"), write("README.md"), write("new.txt"), write("d/gone.txt"), DONE]
    )
    local.ask("go")
    (root / "calc.py").write_text("the human's\n")
    (root / "new.txt").write_text("the human's\n")
    (root / "d" / "gone.txt").unlink()
    (root / "d" / "mine.txt").write_text("the human's\n")
    said = mca.run_command(local, "/undo") or ""
    assert (root / "calc.py").read_text() == (root / "new.txt").read_text() == "the human's\n"
    assert (root / "README.md").read_text() == FILES["README.md"]
    assert (root / "d" / "mine.txt").exists()
    alone = [line for line in said.splitlines() if line.startswith("left alone")]
    assert [name for name in ("calc.py", "new.txt") if any(name in line for line in alone)] == [
        "calc.py",
        "new.txt",
    ]


SWAPS = [
    "mkdir {}",
    "ln -s missing.txt {}",
    "ln -s README.md {}",
    "ln -s ../out/secret.txt {}",
    "mkfifo {}",
]


@posix
@pytest.mark.parametrize("name", ["calc.py", "new.txt"])
@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_command_put_in_place_of_a_file_makes_way_or_is_left_alone_and_named(
    tmp_path: Path, root: Path, local: Any, swap: str, name: str
) -> None:
    (tmp_path / "out").mkdir()
    first = tree(tmp_path)
    local.model_client = mca.FakeModelClient(
        [write(name), shell(f"rm {name}; {swap.format(name)}"), DONE]
    )
    local.ask("go")
    before = tree(tmp_path)
    said = mca.run_command(local, "/undo") or ""
    assert tree(tmp_path) == (before if f"left alone: {name}" in said else first)


@linux
def test_a_file_that_cannot_be_put_back_is_named(
    root: Path, server: OllamaServer, spawn: Spawn
) -> None:
    server.script([write("pkg/util.py"), write("calc.py"), DONE])
    argv = without_root()
    flags = ("--cwd", root, "--host", server.url, "--approval", "auto")
    process = spawn(*flags, stdin=subprocess.PIPE, argv=argv)
    assert process.stdin and process.stdout
    process.stdin.write(b"go\n")
    process.stdin.flush()
    if not process.stdout.readline():
        pytest.skip("root cannot be stopped from writing here")
    (root / "pkg").chmod(0o555)
    out, _ = process.communicate(b"/undo\n", timeout=10)
    (root / "pkg").chmod(0o755)
    assert re.search(rb"left alone: pkg/util.py.*Permission denied", out)
    assert b"put back: calc.py" in out
    assert process.returncode == 0 and (root / "pkg" / "util.py").read_text() == "x\n"


@posix
def test_an_undo_that_failed_forgets_nothing_and_can_be_repeated(root: Path, local: Any) -> None:
    before = tree(root)
    local.model_client = mca.FakeModelClient([write("new.txt"), write("calc.py"), DONE])
    local.ask("go")
    (root / "new.txt").unlink()
    (root / "new.txt").mkdir()
    (root / "new.txt" / "mine").touch()
    local.session["undo"][0]["after"] = ["none"]
    for _ in range(2):
        said = mca.run_command(local, "/undo") or ""
        assert "left alone: new.txt: " in said and "/undo again" in said and "forgotten" not in said
        assert (root / "calc.py").read_text() == FILES["calc.py"]
    (root / "new.txt" / "mine").unlink()
    (root / "new.txt").rmdir()
    again = mca.MiniAgent.from_session(
        local.model_client, local.workspace, mca.SessionStore(local.session_store.root),
        local.session["id"],
    )  # fmt: skip
    assert "forgotten" in (mca.run_command(again, "/undo") or "") and tree(root) == before


def test_a_humans_edit_between_two_requests_survives_both_undos(root: Path, local: Any) -> None:
    local.model_client = mca.FakeModelClient(
        [write("a.txt", "1\n"), DONE, patch("a.txt", "2", "3"), DONE]
    )
    local.ask("one")
    (root / "a.txt").write_text("2\n")
    local.ask("two")
    assert (root / "a.txt").read_text() == "3\n"
    mca.run_command(local, "/undo")
    assert (root / "a.txt").read_text() == "2\n"
    assert "left alone: a.txt" in (mca.run_command(local, "/undo") or "")
    assert (root / "a.txt").read_text() == "2\n"


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGKILL", 0)])
def test_a_request_that_was_killed_can_be_taken_back_too(
    root: Path, server: OllamaServer, agent: Agent, spawn: Spawn, number: int
) -> None:
    before = tree(root)
    server.script([write("calc.py"), write("new/a.txt"), Reply(DONE, hang=60)])
    process = spawn("--cwd", root, "--host", server.url, "--approval", "auto", "go")
    server.wait_for(3)
    process.send_signal(number)
    process.communicate(timeout=10)
    assert tree(root) != before
    done = agent([], "/undo", flags=["--resume", "latest"])
    assert tree(root) == before, done.out


# The program with its death at the moment when a file was put in its place for the nth time.
KILLED = """
import os, runpy, signal, sys
_, name, deaths, *sys.argv = sys.argv
replace, left = os.replace, [None] * int(deaths)
def last_replace(source, target):
    replace(source, target)
    if str(target).endswith(name) and (left.pop(), not left)[1]:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = last_replace
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@posix
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("name", ["calc.py", "new/a.txt", "run.sh"])
def test_a_write_after_which_the_program_was_killed_can_be_taken_back_too(
    root: Path, agent: Agent, name: str, nth: int
) -> None:
    before = tree(root)
    argv = [sys.executable, "-c", KILLED, name, str(nth), PROGRAM]
    done = agent([write(name, "1\n"), write(name, "2\n")], flags=["-p", "go"], argv=argv)
    assert done.code == -signal.SIGKILL and (root / name).read_text() == f"{nth}\n"
    done = agent([], "/undo", flags=["--resume", "latest"])
    assert tree(root) == before, done.out


def test_a_request_that_failed_can_be_taken_back_too(root: Path, agent: Agent) -> None:
    before = tree(root)
    done = agent([write("calc.py"), Reply("model is broken", status=400)], "go", "/undo")
    assert tree(root) == before and "put back: calc.py" in done.out


def test_undo_without_a_request_says_so(root: Path, agent: Agent) -> None:
    done = agent([], "/undo", "/diff")
    assert "no request to take back" in done.out and "changed nothing" in done.out


# What is kept for it


@posix
def test_what_undo_needs_is_private_and_below_the_state_folder(root: Path, agent: Agent) -> None:
    agent([write("calc.py"), write("data.bin")], "go")
    state = root / ".mini-coding-agent"
    files = [path for path in state.rglob("*") if path.is_file() and path.name != ".gitignore"]
    assert any(path.read_bytes() == BINARY for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    folders = [state, *(path for path in state.iterdir() if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert (state / ".gitignore").read_text() == "*\n"


def test_what_is_kept_is_bounded_the_oldest_goes_first_and_is_named(
    root: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mca, "UNDO_BYTES", 10_000)
    names = [f"{number}.txt" for number in range(6)]
    for number, name in enumerate(names):
        (root / name).write_text(f"{number}" * 3000)
    local.model_client = mca.FakeModelClient([*(write(name) for name in names), DONE])
    local.ask("go")
    kept = [path for path in (root / ".mini-coding-agent").rglob("*") if "undo" in path.parts]
    assert sum(path.stat().st_size for path in kept if path.is_file()) <= 10_000
    said = mca.run_command(local, "/undo") or ""
    back = [name for number, name in enumerate(names)
            if (root / name).read_text() == f"{number}" * 3000]  # fmt: skip
    assert back == names[3:]
    for name in names[:3]:
        assert (root / name).read_text() == "x\n"
        assert re.search(rf"left alone: {name}.*not kept", said)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a huge file of the future": lambda path: (path.touch(), os.truncate(path, 10**9)),
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("../../calc.py"),
    "a dangling link": lambda path: path.symlink_to("nothing"),
    "a link to a huge file": lambda path: path.symlink_to("../../huge.txt"),
}


@posix
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["x", "f" * 64])
def test_what_a_stranger_left_among_the_kept_bytes_costs_none_of_them(
    root: Path, local: Any, kind: str, name: str
) -> None:
    (root / "huge.txt").touch()
    os.truncate(root / "huge.txt", 10**9)
    folder, told = root / ".mini-coding-agent" / "undo", []
    folder.mkdir(parents=True)
    HOSTILE[kind](folder / name)
    os.utime(folder / name, (10**10, 10**10), follow_symlinks=False)
    before = {name: (root / name).read_bytes() for name in ("calc.py", "README.md")}
    local.tell = lambda kind, what: told.append(kind)
    local.model_client = mca.FakeModelClient([write("calc.py"), write("README.md"), DONE])
    local.ask("go")
    assert "warning" not in told and (root / "calc.py").read_text() == "x\n"
    said = mca.run_command(local, "/undo") or ""
    assert before == {name: (root / name).read_bytes() for name in before}, said


def test_diff_says_which_old_text_was_not_kept(root: Path, local: Any) -> None:
    local.model_client = mca.FakeModelClient([write("calc.py"), DONE])
    local.ask("go")
    for path in (root / ".mini-coding-agent" / "undo").iterdir():
        path.unlink()
    assert mca.run_command(local, "/diff") == "calc.py: its old text was not kept"


@posix
def test_when_nothing_can_be_kept_the_human_is_told_and_the_work_goes_on(
    tmp_path: Path, root: Path, server: OllamaServer, agent: Agent
) -> None:
    (tmp_path / "out").mkdir()
    (root / ".mini-coding-agent").mkdir()
    (root / ".mini-coding-agent" / "undo").symlink_to(tmp_path / "out")
    done = agent([write("calc.py"), DONE], "go", "/undo")
    assert [*(tmp_path / "out").iterdir()] == [] and done.code == 0
    assert "/undo" in done.err and "calc.py" in done.err and "not kept" in done.out
    assert (root / "calc.py").read_text() == "x\n"


# /diff


def test_diff_shows_what_the_session_changed_from_its_beginning(root: Path, agent: Agent) -> None:
    replies = [patch("calc.py", "a + b", "b + a"), DONE, patch("calc.py", "b + a", "sum((a, b))")]
    agent([*replies, write("new.txt", "one\n"), patch("crlf.txt", "two", "2")], "one", "two")
    done = agent([], "/diff", flags=["--resume", "latest"])
    for line in (
        "--- calc.py",
        "-    return a + b",
        "+    return sum((a, b))",
        "+one",
        "-two",
        "+2",
    ):
        assert any(shown.startswith(line) for shown in done.out.splitlines()), line
    assert "b + a" not in done.out and "sub" not in done.out.replace("def sub(a, b):", "")
    done = agent([], "/undo", "/diff", flags=["--resume", "latest"])
    assert "b + a" in done.out and "sum(" not in done.out and "+one" not in done.out


# Nothing can be saved


@posix
def test_a_full_disk_is_told_once_and_the_last_good_state_stays(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    for number in range(6):
        (root / f"large{number}.txt").write_text(f"line {number}\n" * 1500)
    reads = [call("read_file", path=f"large{number}.txt", end=2000) for number in range(6)]
    argv = at_most("RLIMIT_FSIZE", 30_000)
    done = agent(
        [*reads, write("small.txt"), DONE, "<final>more</final>"], "go", "go on", argv=argv
    )
    assert done.code == 0 and "all said" in done.out and "more" in done.out
    assert done.err.count("not saved") == 1 and "File too large" in done.err
    assert (root / "small.txt").exists()
    (session,) = sessions(root).values()
    assert 1 <= len(session["history"]) < 8
    assert list((root / ".mini-coding-agent").rglob("*.tmp")) == []
    done = agent(["<final>here again</final>"], "go", flags=["--resume", "latest"])
    assert "here again" in done.out


@linux
@pytest.mark.parametrize("what", ["workspace", "state folder"])
def test_a_read_only_folder_is_told_once_and_the_work_goes_on(
    root: Path, server: OllamaServer, agent: Agent, what: str
) -> None:
    folder = root if what == "workspace" else root / ".mini-coding-agent"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    argv = without_root()
    replies = [call("list_files"), write("pkg/new.txt"), DONE, "<final>more</final>"]
    done = agent(replies, "go", "go on", argv=argv)
    folder.chmod(0o755)
    if "root stays root" in done.err:
        pytest.skip("root cannot be stopped from writing here")
    assert done.code == 0 and "more" in done.out and "Traceback" not in done.err
    assert done.err.count("not saved") == 1 and (root / "pkg" / "new.txt").exists()
    assert sessions(root) == {}


@linux
def test_when_saving_works_again_the_whole_session_is_saved(
    root: Path, server: OllamaServer, spawn: Spawn
) -> None:
    server.script([f"<final>answer {number}</final>" for number in range(4)])
    argv = without_root()
    process = spawn("--cwd", root, "--host", server.url, stdin=subprocess.PIPE, argv=argv)
    assert process.stdin and process.stdout
    folder = root / ".mini-coding-agent" / "sessions"
    for number, mode in enumerate((None, 0o500, 0o700)):
        if mode:
            folder.chmod(mode)
        process.stdin.write(b"next\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            pytest.skip("root cannot be stopped from writing here")
        assert line == f"answer {number}\n".encode()
    process.communicate(timeout=10)
    (session,) = sessions(root).values()
    answers = [e["content"] for e in session["history"] if e["role"] == "assistant"]
    assert answers == ["answer 0", "answer 1", "answer 2"]


def test_two_agents_on_one_session_take_back_only_their_own(
    root: Path, server: OllamaServer, agent: Agent, spawn: Spawn
) -> None:
    before = tree(root)
    server.script([write("one.txt"), "<final>first</final>"])
    one = spawn(*("--cwd", root, "--host", server.url, "--approval", "auto"), stdin=subprocess.PIPE)
    assert one.stdin and one.stdout
    one.stdin.write(b"from one\n")
    one.stdin.flush()
    assert one.stdout.readline() == b"first\n"
    agent([write("two.txt"), DONE], "from two", flags=["--resume", "latest"])
    server.script([write("calc.py"), DONE])
    _, err = one.communicate(b"from one again\n/undo\n/undo\n", timeout=20)
    assert b"Another program changed" in err and b"Traceback" not in err
    assert tree(root) == {**before, "two.txt": tree(root)["two.txt"]}
    assert len(sessions(root)) == 2
    agent(
        [],
        "/undo",
        flags=["--resume", next(n for n, s in sessions(root).items() if "from two" in str(s))],
    )
    assert tree(root) == before


# Tampered records

GOOD = "20260102-030405-abcdef"
SHA = hashlib.sha256(b"evil\n").hexdigest()
OLD = hashlib.sha256(FILES["calc.py"].encode()).hexdigest()


def record(name: Any, before: Any = f"{SHA} 644", *after: Any, **more: Any) -> dict[str, Any]:
    known = {"request": 0, "file": name, "before": before, "after": ["none", *after], "folders": 0}
    return known | more


SECRET = hashlib.sha256(b"secret").hexdigest()
ESCAPES = {
    "up": record("../out/secret.txt", f"{SHA} 644", SECRET),
    "up to a new file": record("../out/new.txt"),
    "absolute": record("{out}/new.txt"),
    "through a link": record("link/new.txt"),
    "onto a link": record("dangling"),
    "git": record(".git/hooks/pre-commit"),
    "the sessions": record(".mini-coding-agent/sessions/x.json"),
    "removal outside": record("../out/secret.txt", "none", SECRET),
    "folders outside": record("../out/empty/a.txt", "none", folders=2),
    "folders without end": record("a.txt", "none", folders=10**9),
    "kept bytes outside": record("a.txt", "../../../out/secret.txt 644"),
    "kept bytes by an absolute path": record("a.txt", "{out}/secret.txt 644"),
    "kept bytes that were changed": record("a.txt", f"{OLD} 644"),
}
ODD = {
    "no record": 5,
    "a record with less": {"request": 0, "file": "calc.py", "before": SHA},
    "a state of another type": record("calc.py", 5),
    "no state": record("calc.py", None),
    "states of another type": record("calc.py", "none", None, ["x"]),
    "any state": record("calc.py", f"{SHA} 644", ""),
    "a mode that is no number": record("new.txt", f"{SHA} x"),
    "a mode beyond all modes": record("new.txt", f"{SHA} {'7' * 30}"),
    "a state without mode": record("new.txt", SHA),
    "a state without digest": record("new.txt", " 644"),
    "a name that is a number": record(5),
    "a name with NUL": record("a\0b"),
    "a name that is too long": record("a" * 5000),
    "an empty name": record(""),
    "the workspace": record("."),
    "folders of another type": record("new.txt", folders=[5]),
    "folders below none": record("new.txt", "none", folders=-1),
    "a pipe for the kept bytes": record("new.txt", "pipe 644"),
    "a request to come": record("a\0b", request=1),
}


DRAWN = {"any state", "a mode that is no number", "a mode beyond all modes", "a state without mode",
         "a state without digest", "a name with NUL", "a name that is too long", "an empty name",
         "the workspace", "folders below none", "a pipe for the kept bytes"}  # fmt: skip


def tampered(root: Path, undo: Any, **event: Any) -> Path:
    """A session with these records and kept bytes, as somebody may have written them."""
    state = root / ".mini-coding-agent"
    (state / "sessions").mkdir(parents=True)
    (state / "undo").mkdir()
    for name in (SHA, OLD):
        (state / "undo" / name).write_bytes(b"evil\n")
    history = [{"role": "user", "content": "x"}, *([{"role": "tool", **event}] if event else [])]
    session = {"id": GOOD, "version": 1, "history": history, "undo": [undo], "memory": {}}
    session["fold"] = {"omitted": 0, "at": 0, "request": -1, "chars": 0, "number": 0}
    file = state / "sessions" / f"{GOOD}.json"
    file.write_text(json.dumps(session).replace("{out}", str(root.parent / "out")))
    return file


@posix
@pytest.mark.parametrize("name", [*ESCAPES, *ODD])
def test_a_tampered_undo_record_writes_nothing_outside_and_is_no_traceback(
    tmp_path: Path, root: Path, name: str, local: Any
) -> None:
    (tmp_path / "out" / "empty").mkdir(parents=True)
    (tmp_path / "out" / "secret.txt").write_text("secret")
    (root / "link").symlink_to("../out")
    (root / "dangling").symlink_to("../out/missing")
    (root / ".git" / "hooks").mkdir(parents=True)
    tampered(root, {**ESCAPES, **ODD}[name])
    os.mkfifo(root / ".mini-coding-agent" / "undo" / "pipe")
    outside, inside = tree(tmp_path / "out"), tree(root)
    local.session = local.session_store.load(GOOD)
    assert bool(local.session["undo"]) == (name not in ODD or name in DRAWN)
    for line in ("/diff", "/undo", "/diff", "/undo"):
        assert isinstance(mca.run_command(local, line), str)
    assert tree(tmp_path / "out") == outside
    known = {SHA, OLD, "pipe", f"{GOOD}.json", "sessions", "undo", ".gitignore"}
    assert {path.name for path in (root / ".mini-coding-agent").rglob("*")} <= known
    if name in ESCAPES:
        assert tree(root) == inside


@posix
def test_a_tampered_session_resumes_in_the_program_and_touches_nothing_outside(
    tmp_path: Path, root: Path, agent: Agent
) -> None:
    (tmp_path / "out").mkdir()
    tampered(root, ESCAPES["up to a new file"], name="run_shell", args={}, content="x", exit_code=0)
    done = agent([], "/diff", "/undo", "/session", flags=["--resume", GOOD])
    assert done.code == 0 and "Traceback" not in done.err and GOOD in done.out
    assert [*(tmp_path / "out").iterdir()] == []


@linux
def test_a_huge_file_in_place_of_the_kept_bytes_is_not_read(
    root: Path, server: OllamaServer, agent: Agent
) -> None:
    tampered(root, record("new.txt"))
    os.truncate(root / ".mini-coding-agent" / "undo" / SHA, 5_000_000_000)
    argv = at_most("RLIMIT_AS", 600_000_000)
    done = agent([], "/undo", "/session", flags=["--resume", GOOD], argv=argv)
    assert done.code == 0 and GOOD in done.out and not (root / "new.txt").exists()


def test_a_broken_session_stays_as_it_is(root: Path, server: OllamaServer, agent: Agent) -> None:
    file = tampered(root, record("calc.py"))
    for text in (
        "[" * 100_000,
        "no JSON",
        '{"id": 5}',
        file.read_text().replace('"version": 1', '"version": 9'),
    ):
        file.write_text(text)
        before = tree(root), file.read_bytes(), file.stat().st_mtime_ns
        done = agent([], "go", flags=["--resume", GOOD])
        assert done.code == 2 and done.err.count("\n") == 1 and GOOD in done.err
        assert (tree(root), file.read_bytes(), file.stat().st_mtime_ns) == before
