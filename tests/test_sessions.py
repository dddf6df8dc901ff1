"""Sessions: saved at every event, resumed, never guessed at, never lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import Git, Run, Spawn
from ollama_replies import call
from ollama_server import OllamaServer, Request
from program import PROGRAM

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes, links and pipes")
Agent = Callable[..., Any]
GOOD = "20260102-030405-abcdef"


def sessions(workspace: Path) -> Path:
    return workspace / ".mini-coding-agent" / "sessions"


def saved(workspace: Path) -> dict[str, Any]:
    """All session files of a workspace, read as JSON: id -> session."""
    files = sessions(workspace).glob("*.json")
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def roles(session: Any) -> list[str]:
    return [event["role"] for event in session["history"]]


def put(workspace: Path, name: str = GOOD, **changes: Any) -> Path:
    """Write a session file by hand, as an earlier run could have left it."""
    history = [
        {"role": "user", "content": "the old request", "created_at": "2026-01-02T03:04:05+00:00"},
        {"role": "assistant", "content": "the old answer", "created_at": "2026-01-02T03:04:06"},
    ]
    session = {"id": name, "version": 1, "history": history} | changes
    file = sessions(workspace) / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(session))
    return file


@pytest.fixture
def agent(run_here: Run, server: OllamaServer, repo: Path) -> Agent:
    """agent(*args, stdin=None) runs main() at `repo` with all allowed."""
    return lambda *args, **kwargs: run_here(
        "--cwd", repo, "--host", server.url, "--approval", "auto", *args, **kwargs
    )


# Saving


def test_every_event_is_on_disk_before_the_model_is_asked_again(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    seen: list[list[str]] = []

    def look(reply: str) -> Callable[[str, Request], str]:
        def answer(prompt: str, request: Request) -> str:
            (session,) = saved(repo).values()
            seen.append(roles(session))
            return reply

        return answer

    replies = [call("list_files"), "<tool>{broken</tool>", "<final>done</final>"]
    server.script([look(reply) for reply in replies])
    assert agent("look").code == 0
    malformed = ["assistant", "notice"]
    assert seen == [["user"], ["user", "tool"], ["user", "tool", *malformed]]
    (session,) = saved(repo).values()
    assert roles(session) == ["user", "tool", *malformed, "assistant"]


def test_a_session_is_one_json_object_with_one_event_to_a_line(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    server.script([call("list_files")])
    agent("look around")
    (file,) = sessions(repo).glob("*.json")
    session, lines = json.loads(file.read_text()), file.read_text().splitlines()
    assert session["id"] == file.stem and session["version"] == 1
    assert session["workspace_root"] == str(repo)
    for event in session["history"]:
        assert [line for line in lines if line.strip().rstrip(",") == json.dumps(event)]
    assert session["history"][1]["name"] == "list_files" and "created_at" in session["history"][1]


def test_a_conversation_without_a_request_leaves_no_file(repo: Path, agent: Agent) -> None:
    assert agent(stdin="/help\n/memory\n/reset\n").code == 0
    assert saved(repo) == {}


@posix
def test_session_files_are_private_and_their_folder_is_ignored_by_git(
    repo: Path, git: Git, server: OllamaServer, run: Run
) -> None:
    git("init", "-q", cwd=repo)
    git("add", ".", cwd=repo)
    git("commit", "-q", "-m", "First commit", cwd=repo)
    argv = ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, PROGRAM]
    server.script([call("list_files")])
    assert run("--cwd", repo, "--host", server.url, "hello", argv=argv).code == 0
    (file,) = sessions(repo).glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (file.parent, file.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (repo / ".mini-coding-agent" / ".gitignore").read_text().strip() == "*"
    assert git("status", "--porcelain", cwd=repo) == ""
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@posix
def test_a_state_folder_that_is_a_link_is_not_followed(
    repo: Path, tmp_path: Path, agent: Agent
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repo / ".mini-coding-agent").symlink_to(tmp_path / "elsewhere")
    done = agent("hello")
    assert done.code == 0 and "not saved" in done.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_session_that_cannot_be_saved_is_told_and_the_work_goes_on(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    (repo / ".mini-coding-agent").write_text("in the way")
    server.script([call("list_files"), "<final>went on</final>"])
    done = agent("hello")
    assert done.code == 0 and "went on" in done.out
    assert "not saved" in done.err and "Traceback" not in done.err


# Resuming


def test_resume_latest_goes_on_with_the_youngest_session_in_its_file(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    agent("the first thing")
    agent("the second thing")
    before = saved(repo)
    assert agent("--resume", "latest", "the third thing").code == 0
    assert "the second thing" in server.prompts[-1]
    assert "the first thing" not in server.prompts[-1]
    (changed,) = [name for name in before if saved(repo)[name] != before[name]]
    assert roles(saved(repo)[changed]) == ["user", "assistant"] * 2


def test_resume_with_an_id_goes_on_with_that_session(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    agent("the first thing")
    (first,) = saved(repo)
    agent("the second thing")
    done = agent("--resume", first, stdin="/session\nand now\n")
    assert first in done.out and first in done.err
    assert "the first thing" in server.prompts[-1]
    assert "the second thing" not in server.prompts[-1]
    assert len(saved(repo)) == 2


def test_a_session_can_be_resumed_though_its_folder_has_moved(
    repo: Path, tmp_path: Path, server: OllamaServer, agent: Agent, run: Run
) -> None:
    agent("remember me")
    moved = repo.rename(tmp_path / "moved")
    done = run("--cwd", moved, "--host", server.url, "--resume", "latest", "again")
    assert done.code == 0 and "remember me" in server.prompts[-1]


def test_latest_passes_over_sessions_without_a_request(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    old = put(repo)
    young = put(repo, "20270102-030405-aaaaaa", history=[{"role": "notice", "content": "x"}])
    os.utime(old, (1_000, 1_000))
    os.utime(young, (2_000, 2_000))
    assert agent("--resume", "latest", "go on").code == 0
    assert "the old request" in server.prompts[-1]


def test_latest_passes_over_damaged_sessions_and_names_them(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    os.utime(put(repo), (1_000, 1_000))
    put(repo, "20270102-030405-aaaaaa", history=7)
    (sessions(repo) / "notes of mine.json").write_text("no session")
    done = agent("--resume", "latest", stdin="/resume latest\n/resume latest\ngo on\n")
    assert done.code == 0 and "the old request" in server.prompts[-1]
    told = "session 20270102-030405-aaaaaa cannot be read: it is not a session of this program"
    assert done.err.count(f"{told}; it is passed over") == 1 and done.out.count(told) == 2


def test_a_session_that_changes_while_it_is_read_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, opened = put(tmp_path), mca.open_regular

    def open_and_change(path: Path) -> Any:
        reader = opened(path)
        other = file.with_suffix(".new")
        other.write_text(file.read_text() + " ")
        other.replace(file)
        return reader

    store = mca.SessionStore(sessions(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(mca, "open_regular", open_and_change)
        session = store.load(GOOD)
    before = file.read_bytes()
    assert store.save(session) != file and file.read_bytes() == before


def refused(done: Any, server: OllamaServer) -> str:
    """The one line of a run that ended before it began."""
    assert done.code == 2 and done.out == "" and server.prompts == []
    (line,) = done.err.splitlines()
    assert line.isprintable() and len(line) < 400
    return str(line)


def test_without_a_session_there_is_nothing_to_resume(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    assert "no session" in refused(agent("--resume", "latest", "x"), server)
    put(repo, history=[])
    assert "no session" in refused(agent("--resume", "latest", "x"), server)
    assert refused(agent("--resume", "latest", stdin="hello\n"), server)


@pytest.mark.parametrize(
    "name",
    [
        *("20260102-030405-ffffff", "", "../sessions/" + GOOD, "/etc/passwd"),
        *(GOOD + ".json", "x\x1b[2J\ny", "\u202e" + GOOD, "y" * 300),
    ],
)
def test_an_unknown_id_or_one_that_is_no_name_is_refused_in_one_line(
    repo: Path, server: OllamaServer, agent: Agent, name: str
) -> None:
    put(repo)
    before = saved(repo)
    assert refused(agent(f"--resume={name}", "x"), server)
    assert saved(repo) == before


TOOL = {"role": "tool", "name": "list_files", "args": {}, "content": "x"}
BROKEN: dict[str, Any] = {
    "empty": b"",
    "not JSON": b"hello",
    "cut off": b'{"id": "' + GOOD.encode() + b'", "version": 1, "history": [{"role": "user"',
    "not UTF-8": b'{"history": ["\xff\xfe"]}',
    "NUL bytes": b"\0" * 500,
    "nested deeply": b'{"history":' + b"[" * 200_000,
    "a list": b"[]",
    "null": b"null",
    "a huge number": b'{"version": ' + b"9" * 5000 + b', "history": []}',
    "no history": {"history": None},
    "history of text": {"history": "hello"},
    "an event that is text": {"history": ["hello"]},
    "an event without content": {"history": [{"role": "user"}]},
    "content that is a number": {"history": [{"role": "user", "content": 7}]},
    "a role that is a list": {"history": [{"role": [], "content": "x"}]},
    "a tool without name": {"history": [{"role": "tool", "args": {}, "content": "x"}]},
    "arguments that are text": {"history": [TOOL | {"args": "x"}]},
    "version of the future": {"version": 99},
    "version in words": {"version": "one"},
    "the id of another": {"id": "20250101-000000-bbbbbb"},
    "an id that is a path": {"id": "../../evil"},
    "an id that is a number": {"id": 5},
}


def break_session(workspace: Path, name: str) -> Path:
    damage = BROKEN[name]
    file = put(workspace, **(damage if isinstance(damage, dict) else {}))
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    return file


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_session_does_not_load_and_the_reason_is_one_line(
    tmp_path: Path, name: str
) -> None:
    file = break_session(tmp_path, name)
    before = file.read_bytes()
    with pytest.raises(RuntimeError) as caught:
        mca.SessionStore(sessions(tmp_path)).load(GOOD)
    assert GOOD in str(caught.value) and str(caught.value).isprintable()
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["not JSON", "nested deeply", "an event without content"])
def test_a_broken_session_is_reported_in_one_line_and_left_alone(
    repo: Path, server: OllamaServer, agent: Agent, name: str
) -> None:
    file = break_session(repo, name)
    before = file.read_bytes()
    assert GOOD in refused(agent("--resume", GOOD, "x"), server)
    assert file.read_bytes() == before and [*file.parent.iterdir()] == [file]


# What is only a copy or a remark may be damaged without harm, or is refused; it never crashes.
TAMPERED: dict[str, Any] = {
    "memory": {"memory": [1, 2]},
    "fold": {"fold": {"omitted": "x", "at": 99, "other": 1}},
    "fold out of range": {"fold": {"omitted": 0, "at": 2, "request": -1, "chars": -5}},
    "fold of floats": {"fold": {"at": 1e999}},
    "read facts": {
        "history": [
            {"role": "user", "content": "x"},
            TOOL | {"name": "read_file", "digest": 5, "lines": "x", "file": ["y"]},
        ]
    },
    "command facts": {
        "history": [
            {"role": "user", "content": "x"},
            TOOL | {"name": "run_shell", "exit_code": "x", "changed": 7},
        ]
    },
    "odd arguments": {
        "history": [
            {"role": "user", "content": "x"},
            TOOL | {"name": "read_file", "args": {"path": ["a"], "": None}},
        ]
    },
    "a foreign role": {"history": [{"role": "wizard", "content": "x"}]},
    "a role that is a label": {"history": [{"role": "user]\n[user", "content": "x"}]},
    "lone surrogates": {"history": [{"role": "user", "content": "a\ud800b"}]},
    "created_at": {"created_at": 7, "workspace_root": [], "title": {}},
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_session_goes_on_or_is_refused_with_a_reason(repo: Path, name: str) -> None:
    file = put(repo, **TAMPERED[name])
    before = file.read_bytes()
    model = mca.FakeModelClient(
        [call("read_file", path="calc.py"), call("list_files"), "<final>done</final>"]
    )
    store, workspace = mca.SessionStore(sessions(repo)), mca.WorkspaceContext.build(repo)
    try:
        agent = mca.MiniAgent.from_session(model, workspace, store, GOOD)
    except RuntimeError as error:
        assert GOOD in str(error) and str(error).isprintable()
        assert file.read_bytes() == before
        return
    assert agent.ask("go on") == "done" and len(model.prompts) == 3
    assert mca.memory_text(mca.memory_of(agent.session["history"]))
    assert mca.SessionStore(sessions(repo)).load(GOOD) == agent.session


# Every key of a real session, set to what it must not be
ODD: list[Any] = [
    None, True, -1, 7, 10**30, 1e999, "", "x", "a\0b", "../../out", "\ud800", "\x1b[2J\n[user]", [],
    [None], [[]], {}, {"a": {"b": []}}, json.loads("[" * 300 + "]" * 300), "gone",
]  # fmt: skip
Place = tuple[Any, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Where the parts of a JSON value are, itself included."""
    yield here
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*here, key))


def mutated(session: Any, place: Place, odd: Any) -> Any:
    """A copy of the session with one part replaced or, if `odd` is "gone", left out."""
    copy = json.loads(json.dumps(session))
    holder = copy
    for key in place[:-1]:
        holder = holder[key]
    if not place:
        return odd
    if odd == "gone":
        del holder[place[-1]]
    else:
        holder[place[-1]] = odd
    return copy


def real_session(repo: Path) -> Any:
    """A session with a folded read, a write, a patch, a command, a slip and a subagent."""
    replies = [
        call("read_file", path="calc.py"), call("write_file", path="new/a.txt", content="x\n"),
        call("patch_file", path="calc.py", old_text="a + b", new_text="b + a"),
        call("run_shell", command="echo hi"), call("delegate", task="look"), call("list_files"),
        "<final>seen</final>", "<tool>{broken</tool>", "<final>done</final>",
    ]  # fmt: skip
    agent = mca.MiniAgent(
        model_client=mca.FakeModelClient(replies), workspace=mca.WorkspaceContext.build(repo),
        session_store=mca.SessionStore(sessions(repo)), approval_policy="auto", max_steps=20,
    )  # fmt: skip
    assert agent.ask("go") == "done"
    agent.session |= {"id": GOOD, "fold": mca.asdict(mca.Fold(1, 2, 0, 0, 1))}
    agent.save()
    return json.loads((sessions(repo) / f"{GOOD}.json").read_text())


def use(repo: Path) -> str:
    """Do with the session all that can be done with one; return why it was refused, if it was."""
    model = mca.FakeModelClient([call("read_file", path="calc.py"), "<final>done</final>"] * 2)
    store, workspace = mca.SessionStore(sessions(repo)), mca.WorkspaceContext(str(repo), str(repo))
    try:
        agent = mca.MiniAgent.from_session(model, workspace, store, GOOD)
    except RuntimeError as error:
        return str(error)
    for command in ("/context", "/memory", "/diff", "/sessions", "/undo", "/diff", "/undo"):
        assert isinstance(mca.run_command(agent, command), str)
        assert agent.prompt("x") and isinstance(agent.history_text(), str)
    assert agent.ask("go on") == "done"
    assert "forgotten" in (mca.run_command(agent, "/undo") or "")
    assert mca.SessionStore(store.root).load(GOOD) == agent.session
    return ""


@posix
def test_no_part_of_a_session_can_be_tampered_with_to_a_traceback(repo: Path) -> None:
    session, file = real_session(repo), sessions(repo) / f"{GOOD}.json"
    files = {path: path.read_bytes() for path in (repo / "calc.py", repo / "new" / "a.txt")}
    spots = [place for place in places(session) if "child" not in place[:-1]]
    cases = [(place, odd) for place in spots for odd in ODD]
    refusals = 0
    for number, (place, odd) in enumerate(cases):
        if number % 7:  # the others are as good, and take seconds
            continue
        for path, data in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        text = json.dumps(mutated(session, place, odd))
        file.write_text(text)
        try:
            refused = use(repo)
        except Exception as error:
            raise AssertionError(f"{place} = {str(odd)[:80]!r}") from error
        if refused:
            assert GOOD in refused and refused.isprintable() and len(refused) < 300
            assert file.read_text() == text
            refusals += 1
        assert not (repo.parent / "out").exists()
    assert len(spots) > 100 and 60 < refusals < len(cases) // 14


@posix
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link"])
def test_a_session_that_is_no_regular_file_is_refused(
    repo: Path, tmp_path: Path, server: OllamaServer, agent: Agent, kind: str
) -> None:
    real = put(tmp_path)
    file = sessions(repo) / f"{GOOD}.json"
    file.parent.mkdir(parents=True)
    match kind:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case _:
            file.symlink_to(real if kind == "link" else tmp_path / "nothing")
    before = real.read_bytes()
    assert refused(agent("--resume", GOOD, "x"), server)
    assert refused(agent("--resume", "latest", "x"), server)
    assert real.read_bytes() == before and not (tmp_path / "nothing").exists()


def test_a_session_as_other_agents_wrote_it_is_resumed(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    name, at = "20250304-050607-0a1b2c", {"created_at": "2025-03-04T05:06:07+00:00"}
    history = [
        {"role": "user", "content": "what does calc do"} | at,
        {"role": "tool", "name": "read_file", "args": {"path": "calc.py", "start": 1, "end": 200}}
        | {"content": "# calc.py\n   1: def add(a, b):"} | at,
        {"role": "assistant", "content": "It adds."} | at,
    ]  # fmt: skip
    memory = {"task": "what does calc do", "files": ["calc.py"], "notes": ["It adds."]}
    file = sessions(repo) / f"{name}.json"
    file.parent.mkdir(parents=True)
    session = {"id": name, "workspace_root": "/gone", "history": history, "memory": memory} | at
    file.write_text(json.dumps(session, indent=2))
    done = agent("--resume", name, stdin="/memory\nand what else\n")
    assert done.code == 0 and "calc.py" in done.out and "It adds." in done.out
    for text in ("what does calc do", "   1: def add(a, b):", "It adds."):
        assert text in server.prompts[0]
    now = json.loads(file.read_text())
    assert now["history"][:3] == history and now["version"] == 1
    assert now["memory"]["task"] == "and what else"


# Memory


def test_memory_holds_the_newest_task_the_last_eight_files_and_the_last_five_notes(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    for number in range(10):
        (repo / f"f{number}.py").write_text("x = 1\n")
    reads = [call("read_file", path=f"f{number}.py") for number in (*range(10), 3)]
    patch = call("patch_file", path="f5.py", old_text="x = 1", new_text="x = 2")
    finals = [f"<final>finding {number}</final>" for number in range(6)]
    made = call("write_file", path="new.py", content="y = 1\n")
    server.script([*reads, patch, finals[0], made, *finals[1:]])
    asked = "".join(f"request {number}\n" for number in range(6))
    done = agent("--max-steps", "20", stdin=asked + "/memory\n")
    assert done.code == 0, done.err
    (session,) = saved(repo).values()
    memory = session["memory"]
    assert memory["task"] == "request 5"
    kept = ["f4.py", "f6.py", "f7.py", "f8.py", "f9.py", "f3.py", "f5.py", "new.py"]
    assert memory["files"] == kept
    assert memory["notes"] == [f"finding {number}" for number in range(1, 6)]
    for shown in ("request 5", *kept, "finding 1", "finding 5"):
        assert shown in done.out
    assert "f0.py" not in done.out.partition("- task")[2]


# /reset


def test_reset_begins_a_new_session_and_keeps_the_old_one(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    server.script([call("read_file", path="calc.py"), "<final>old answer</final>"])
    done = agent(stdin="old question\n/reset\n/memory\nnew question\n/session\n")
    assert done.code == 0
    prompt = server.prompts[-1]
    assert "new question" in prompt and "old question" not in prompt
    assert "old answer" not in prompt and "- files: -" in prompt
    by_request = {session["history"][0]["content"]: name for name, session in saved(repo).items()}
    assert set(by_request) == {"old question", "new question"}
    assert by_request["new question"] in done.out
    assert roles(saved(repo)[by_request["old question"]]) == ["user", "tool", "assistant"]
    agent("--resume", by_request["old question"], "again")
    assert "old answer" in server.prompts[-1] and "new question" not in server.prompts[-1]


# Two agents, and sudden ends


def test_two_agents_on_one_session_do_not_overwrite_each_other(
    repo: Path, server: OllamaServer, agent: Agent, spawn: Spawn
) -> None:
    server.script([f"<final>answer {number}</final>" for number in range(4)])
    one = spawn("--cwd", repo, "--host", server.url, stdin=subprocess.PIPE)
    assert one.stdin and one.stdout
    one.stdin.write(b"from one\n")
    one.stdin.flush()
    assert b"answer 0" in one.stdout.readline()
    (shared,) = saved(repo)
    assert agent("--resume", "latest", "from two").code == 0
    out, err = one.communicate(b"from one again\nand again\n", timeout=30)
    assert one.returncode == 0 and b"answer 3" in out
    assert err.decode().count("Another program changed") == 1
    (other,) = [name for name in saved(repo) if name != shared]
    assert other in err.decode()
    users = {
        name: [e["content"] for e in session["history"] if e["role"] == "user"]
        for name, session in saved(repo).items()
    }
    assert users == {
        shared: ["from one", "from two"],
        other: ["from one", "from one again", "and again"],
    }


def test_a_session_file_that_is_gone_is_not_mourned(
    repo: Path, server: OllamaServer, spawn: Spawn
) -> None:
    server.script([f"<final>answer {number}</final>" for number in range(2)])
    one = spawn("--cwd", repo, "--host", server.url, stdin=subprocess.PIPE)
    assert one.stdin and one.stdout
    one.stdin.write(b"first\n")
    one.stdin.flush()
    one.stdout.readline()
    (file,) = sessions(repo).glob("*.json")
    file.unlink()
    _, err = one.communicate(b"second\n", timeout=30)
    assert one.returncode == 0 and b"Traceback" not in err
    (session,) = saved(repo).values()
    assert roles(session) == ["user", "assistant"] * 2


def test_killed_at_any_moment_the_file_on_disk_is_a_session_that_loads(
    tmp_path: Path, spawn: Spawn, server: OllamaServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20260102)
    moments = {f"run{n}": (chance.randrange(8), chance.uniform(0, 0.02)) for n in range(50)}
    asked = {name: threading.Semaphore(0) for name in moments}
    numbers = itertools.count(1)

    def reply(prompt: str, request: Request) -> str:
        found = re.search(r"(run\d+)\n", prompt)
        assert found
        asked[found[1]].release()
        return call("read_file", path="data.txt", start=next(numbers), end=9_999_999)

    def scripted_run(name: str) -> None:
        folder, (prompts, seconds) = tmp_path / name, moments[name]
        folder.mkdir()
        (folder / "data.txt").write_text("some text\n" * 2000)
        flags = ["--max-steps", "500", "--num-ctx", "200000", "--host", server.url]
        process = spawn(*flags, "--cwd", folder, "read it again and again")
        for _ in range(prompts):
            assert asked[name].acquire(timeout=30)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds if prompts else 8 * seconds)
        process.kill()
        process.wait()

    server.script([], then=reply)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(scripted_run, moments))
    events: list[int] = []
    for name, (prompts, _) in moments.items():
        store = mca.SessionStore(sessions(tmp_path / name))
        names = [file.stem for file in store.root.glob("*.json")]
        assert len(names) == 1 if prompts else len(names) <= 1
        for session_id in names:
            history = store.load(session_id)["history"]
            assert history[0]["content"] == "read it again and again"
            assert len(history) >= prompts and store.latest() == session_id
            events.append(len(history))
    with capsys.disabled():
        print(f"\n50 kills: {len(events)} sessions of {min(events)} to {max(events)} events")
    server.script([], then="<final>here again</final>")
    last = next(name for name, (prompts, _) in moments.items() if prompts)
    done = run("--cwd", tmp_path / last, "--host", server.url, "--resume", "latest", "go on")
    assert done.code == 0 and "here again" in done.out


# The store by itself


def test_a_store_saves_loads_and_names_the_latest(tmp_path: Path) -> None:
    store = mca.SessionStore(tmp_path / ".mini-coding-agent" / "sessions")
    assert store.latest() is None
    agent = mca.MiniAgent(
        model_client=mca.FakeModelClient(["<final>hello</final>"]),
        workspace=mca.WorkspaceContext.build(tmp_path), session_store=store,
    )  # fmt: skip
    assert agent.ask("hi") == "hello"
    name = agent.session["id"]
    assert store.path(name).exists() and store.latest() == name
    again = mca.SessionStore(store.root)
    assert again.load(name) == agent.session
    other = mca.MiniAgent.from_session(
        model_client=mca.FakeModelClient(["<final>again</final>"]), workspace=agent.workspace,
        session_store=again, session_id=name,
    )  # fmt: skip
    assert other.ask("and") == "again" and "hello" in other.model_client.prompts[0]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "a\0b", "-x", "a\\b", "x" * 100])
def test_an_id_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError):
        mca.SessionStore(tmp_path).path(name)


def test_events_are_written_once_and_an_old_one_that_is_replaced_is_seen(tmp_path: Path) -> None:
    def contents(items: Sequence[dict[str, Any]]) -> list[str]:
        return [item["content"] for item in items]

    store = mca.SessionStore(tmp_path / ".mini-coding-agent" / "sessions")
    session = json.loads(put(tmp_path).read_text()) | {"id": "20260102-030405-cccccc"}
    store.save(session)
    session["history"][0] = session["history"][0] | {"content": "another"}
    session["history"].append({"role": "user", "content": "new"})
    file = store.save(session)
    wanted = ["another", "the old answer", "new"]
    assert contents(json.loads(file.read_text())["history"]) == wanted
