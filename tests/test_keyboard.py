"""The terminal: keys, pastes, commands, and what a person sees while the agent works."""

from __future__ import annotations

import json
import re
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import DONE, FILES, OpenTerminal, Run
from ollama_replies import call, python
from ollama_server import OllamaServer, Reply
from terminal import Terminal

try:
    import readline

    GNU = "libedit" not in (readline.__doc__ or "")
except ImportError:
    GNU = False

keys = pytest.mark.skipif(not GNU, reason="this Python has no GNU readline")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file modes")

PROMPT = re.compile(r"(?:^|[\r\n])(?:plan)?> ")
ANSWERED = re.compile(r"[\r\n]done\n(?:.*\n){0,3}[\r\n]?> ")
QUESTION = "or why not: "
UP, LEFT, CTRL_A, CTRL_E, CTRL_R, CTRL_W = "\x1b[A", "\x1b[D", "\x01", "\x05", "\x12", "\x17"
SGR = re.compile(r"\x1b\[[0-9;]*m")

Talk = Callable[..., Terminal]


def waiting(path: Path) -> str:
    """A command that ends when a file is there."""
    code = f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)"
    return call("run_shell", command=f'"{sys.executable}" -c "{code}"', timeout=60)


@pytest.fixture
def talk(terminal: OpenTerminal, server: OllamaServer, repo: Path) -> Talk:
    """talk(*replies, args=()) -> the program on a terminal, at its first prompt."""

    def talk(*replies: Any, args: tuple[str, ...] = (), **kwargs: Any) -> Terminal:
        server.script(replies, then=DONE)
        tty = terminal("--cwd", repo, "--host", server.url, *args, **kwargs)
        tty.expect(PROMPT)
        return tty

    return talk


def say(tty: Terminal, text: str) -> str:
    """Type a line; what was printed up to the next prompt."""
    tty.line(text)
    return tty.expect(PROMPT).replace("\r", "\n")


def list_sessions(repo: Path) -> list[Path]:
    return [*(repo / ".mini-coding-agent" / "sessions").glob("*.json")]


def events(repo: Path) -> list[dict[str, Any]]:
    """The events of the session written last."""
    found = sorted(
        (repo / ".mini-coding-agent" / "sessions").glob("*.json"),
        key=lambda f: f.stat().st_mtime_ns,
    )
    return list(json.loads(found[-1].read_text("utf-8"))["history"]) if found else []


def requests(repo: Path) -> list[str]:
    return [event["content"] for event in events(repo) if event["role"] == "user"]


def columns(text: str) -> int:
    """The columns that a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return wide + sum(unicodedata.category(char) not in ("Mn", "Me", "Cf") for char in text)


# Typing


@keys
def test_a_line_can_be_edited_before_it_is_sent(talk: Talk, repo: Path) -> None:
    tty = talk()
    say(tty, f"ell{LEFT}{LEFT}{LEFT}{CTRL_A}h{CTRL_E}o you{CTRL_W}me")
    assert requests(repo) == ["hello me"]


@keys
def test_up_arrow_brings_the_last_line_of_an_earlier_program(talk: Talk, repo: Path) -> None:
    tty = talk()
    say(tty, "the first thing")
    tty.line("/exit")
    assert tty.wait() == 0
    say(talk(), UP + UP)
    assert requests(repo) == ["the first thing"] and len(list_sessions(repo)) == 2


@keys
def test_ctrl_r_finds_an_earlier_line(talk: Talk, repo: Path) -> None:
    tty = talk()
    for text in ("find the bug", "mend it"):
        say(tty, text)
    tty.send(CTRL_R + "the")
    tty.expect("find the bug")
    tty.line()
    tty.expect(ANSWERED)
    assert requests(repo) == ["find the bug", "mend it", "find the bug"]


def history(agent_env: dict[str, str]) -> Path:
    return Path(agent_env["HOME"]) / ".mini_coding_agent_history"


@keys
@posix
def test_the_history_is_for_the_user_alone_and_shared_by_programs_that_run_at_once(
    talk: Talk, agent_env: dict[str, str]
) -> None:
    one, two = talk(), talk()
    for tty, text in ((one, "from one"), (two, "from two"), (one, "one again")):
        say(tty, text)
    assert history(agent_env).read_text().split("\n") == ["from one", "from two", "one again", ""]
    assert stat.S_IMODE(history(agent_env).stat().st_mode) == 0o600


@keys
def test_the_history_is_bounded_and_keeps_what_is_newest(
    talk: Talk, agent_env: dict[str, str]
) -> None:
    history(agent_env).write_text("".join(f"line {n}\n" for n in range(5000)))
    say(talk(), "newest")
    lines = history(agent_env).read_text().splitlines()
    assert lines[-2:] == ["line 4999", "newest"] and len(lines) <= 1100


@keys
def test_empty_lines_and_answers_to_questions_are_no_history(
    talk: Talk, agent_env: dict[str, str]
) -> None:
    tty = talk(python("print(1)"))
    tty.line("run it")
    tty.expect(QUESTION)
    for text in ("because I said no", "", ""):
        say(tty, text)
    assert history(agent_env).read_text().splitlines() == ["run it"]


@keys
def test_tab_completes_a_command_and_shows_those_that_fit(talk: Talk) -> None:
    tty = talk()
    assert "List the commands" in say(tty, "/hel\t")
    tty.send("/res\t\t")
    tty.expect("/reset")
    tty.expect("/resume")


@keys
def test_tab_completes_nothing_else(talk: Talk, repo: Path) -> None:
    tty = talk()
    say(tty, "look at calc\t")
    assert requests(repo) == ["look at calc"]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_without_readline_it_works_all_the_same(
    talk: Talk, repo: Path, tmp_path: Path, agent_env: dict[str, str], term: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['readline'] = None\n"
    )
    tty = talk(env={"PYTHONPATH": str(tmp_path / "site"), "TERM": term})
    assert "done" in say(tty, "hello")
    assert "List the commands" in say(tty, "/help")
    tty.paste("a paste\n/exit\nof three\n")
    tty.expect(PROMPT)
    tty.ctrl_c()
    tty.expect(PROMPT)
    tty.eof()
    assert tty.wait() == 0 and not history(agent_env).exists()
    assert requests(repo) == ["hello", "a paste\n/exit\nof three"]


# Requests of several lines

PASTE = "def f():\n    return 1\n\n/exit\n/undo it"
TABS = "if x:\n\tif y:\n\t\treturn\t1"


@keys
@pytest.mark.parametrize("text", [PASTE, TABS])
def test_a_bracketed_paste_is_one_request_and_keeps_its_tabs(
    talk: Talk, repo: Path, server: OllamaServer, text: str
) -> None:
    tty = talk()
    assert "\x1b[?2004h" in tty.raw
    tty.paste(text)
    say(tty, "")
    assert requests(repo) == [text] and len(server.prompts) == 1


def test_a_paste_without_brackets_is_one_request(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    tty = talk(env={"TERM": "dumb"})
    assert "\x1b" not in tty.raw  # no brackets have been asked for
    tty.paste(PASTE + "\n")
    tty.expect(PROMPT)
    assert requests(repo) == [PASTE] and len(server.prompts) == 1


@keys
def test_a_paste_may_be_edited_and_goes_on_with_what_is_typed(talk: Talk, repo: Path) -> None:
    tty = talk()
    tty.paste("explain\n/exit")
    say(tty, " please")
    assert requests(repo) == ["explain\n/exit please"]


@keys
def test_a_paste_that_begins_like_a_command_is_text(talk: Talk, repo: Path) -> None:
    tty = talk()
    tty.paste("/exit\nis what I typed")
    say(tty, "")
    assert requests(repo) == ["/exit\nis what I typed"]


BLOCKS = {
    "block": (['"""', "one", "/exit", "  two", '"""'], "one\n/exit\n  two"),
    "text beside the quotes": (['"""one', 'two"""'], "one\ntwo"),
    "one line": (['"""/exit"""'], "/exit"),
    "blank lines inside": (['"""', "one", "", "two", '"""'], "one\n\ntwo"),
    "backslash": (["one \\", "/exit \\", "two"], "one \n/exit \ntwo"),
    "command first, then a backslash": (["/exit\\", "is a word"], "/exit\nis a word"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_request_may_have_several_lines_and_a_command_in_it_is_text(
    talk: Talk, repo: Path, name: str
) -> None:
    lines, request = BLOCKS[name]
    tty = talk()
    for line in lines[:-1]:
        tty.line(line)
        tty.expect("... ")
    say(tty, lines[-1])
    assert requests(repo) == [request]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_work_in_a_pipe_too_and_other_lines_are_never_joined(
    run: Run, server: OllamaServer, repo: Path, name: str
) -> None:
    lines, request = BLOCKS[name]
    server.script([], then=DONE)
    done = run("--cwd", repo, "--host", server.url, stdin="\n".join(["a", "b", *lines, "c", ""]))
    assert done.code == 0 and requests(repo) == ["a", "b", request, "c"]


def test_ctrl_c_leaves_a_block_and_nothing_of_it_is_sent(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    tty = talk()
    tty.line('"""')
    tty.expect("... ")
    tty.line("half of it")
    tty.expect("... ")
    tty.ctrl_c()
    tty.expect(PROMPT)
    say(tty, "something else")
    assert requests(repo) == ["something else"] and len(server.prompts) == 1


# Attaching files


def test_a_path_after_an_at_sign_attaches_the_file_without_a_step(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    tty = talk()
    shown = say(tty, "What does @calc.py do?")
    user, read, answer = events(repo)
    assert user["content"] == "What does @calc.py do?" and answer["content"] == "done"
    assert (read["name"], read["args"]["path"]) == ("read_file", "calc.py")
    assert "   1: def add(a, b):" in read["content"] and read["content"] in server.prompts[0]
    assert "6 tool calls left" in server.prompts[0] and "0 steps" in shown
    assert "read_file calc.py" in shown
    say(tty, "go on")
    assert server.prompts[1].startswith(server.prompts[0].rpartition("Current user request:")[0])


ATTACHED = {
    "at the end of a sentence": ("see @calc.py.", ["calc.py"]),
    "two": ("@calc.py, @pkg/util.py", ["calc.py", "pkg/util.py"]),
    "in brackets": ("(as in calc) @calc.py)", ["calc.py"]),
    "missing": ("see @missing.py", []),
    "folder": ("see @pkg", []),
    "outside": ("see @../secret.txt and @/etc/passwd", []),
    "protected": ("see @.git/config and @.mini-coding-agent/x", []),
    "mail": ("write to me@calc.py", []),
    "decorator": ("what is @property?", []),
}


@pytest.mark.parametrize("name", ATTACHED)
def test_only_files_of_the_workspace_are_attached_and_the_rest_stays_text(
    run: Run, server: OllamaServer, repo: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret.txt").write_text("the secret\n")
    for folder in (".git", ".mini-coding-agent"):
        (repo / folder).mkdir()
        (repo / folder / {".git": "config"}.get(folder, "x")).write_text("inner\n")
    request, paths = ATTACHED[name]
    server.script([DONE])
    done = run("--cwd", repo, "--host", server.url, "-p", request)
    assert done.code == 0 and requests(repo) == [request]
    read = [event["args"]["path"] for event in events(repo) if event["role"] == "tool"]
    assert read == paths and "the secret" not in server.prompts[0]


def test_an_attached_file_has_the_bounds_of_a_reading(
    run: Run, server: OllamaServer, repo: Path
) -> None:
    (repo / "long.txt").write_text("".join(f"line {n}\n" for n in range(1, 1001)))
    (repo / "wide.txt").write_text("x" * 100_000)
    (repo / "binary.dat").write_bytes(b"\0" * 100)
    server.script([DONE])
    run("--cwd", repo, "--host", server.url, "-p", "@long.txt @wide.txt @binary.dat")
    long, wide, binary = (e["content"] for e in events(repo) if e["role"] == "tool")
    assert "line 200\n" in long and "line 201\n" not in long and "start=201" in long
    assert len(wide) < 13_000 and "binary" in binary


# Commands


def test_an_unknown_command_names_the_nearest_and_never_reaches_the_model(
    talk: Talk, server: OllamaServer
) -> None:
    tty = talk()
    assert "/memory" in say(tty, "/memroy")
    assert "/sessions" in say(tty, "/sesions now")
    assert "/help" in say(tty, "/qqqqqqqq")
    assert server.prompts == []


def test_every_command_of_help_is_known_and_help_names_each(talk: Talk) -> None:
    tty = talk(rows=50)
    shown = say(tty, "/help")
    names = re.findall(r"/[a-z]+", "\n".join(re.findall(r"(?m)^/[a-z, /]+", shown)))
    assert set(names) == set(mca.COMMANDS) and '"""' in shown and "@path" in shown
    assert all(len(line) <= 80 for line in shown.split("\n"))
    for name in names:
        if name not in ("/exit", "/quit"):
            assert "There is no command" not in say(tty, name)
    for name in ("/exit", "/quit"):
        tty = talk()
        tty.line(name)
        assert tty.wait() == 0


def test_context_names_what_fills_the_window(talk: Talk) -> None:
    tty = talk(call("read_file", path="calc.py"))
    say(tty, "look")
    shown = say(tty, "/context")
    sizes = {name: int(n) for name, n in re.findall(r"(?m)^ *([a-z ]+?) +(-?\d+)\b", shown)}
    assert sizes["window"] == 16384 and sizes["room for the reply"] == 512
    parts = [sizes[n] for n in ("prefix", "memory", "transcript", "tail", "free")]
    assert sum(parts) + 512 == 16384 and min(parts) > 0
    assert re.search(r"\d\.\d\d bytes per token, \d+% reused, 0 folds", shown)


def test_context_full_prints_what_the_server_gets_next(
    run: Run, server: OllamaServer, repo: Path
) -> None:
    server.script([call("read_file", path="calc.py"), DONE, DONE])
    done = run("--cwd", repo, "--host", server.url, stdin="look\n/context full\nlook\n")
    begin = done.out.index("You are Mini-Coding-Agent")
    printed = done.out[begin : done.out.index("\ndone\n", begin)]
    before, label, tail = printed.rpartition("\nCurrent user request:\n")
    assert label and "[tool:read_file]" in before
    assert server.prompts[2].startswith(before)
    assert server.prompts[2].rpartition(label)[2] == tail.rstrip("\n")


def test_diff_shows_what_the_session_changed_and_undo_takes_it_back(talk: Talk, repo: Path) -> None:
    patch = call("patch_file", path="calc.py", old_text="a + b", new_text="b + a")
    tty = talk(
        patch, call("write_file", path="new.txt", content="new\n"), args=("--approval=auto",)
    )
    assert "changed nothing" in say(tty, "/diff")
    assert "/undo" in say(tty, "change it")
    shown = say(tty, "/diff")
    for line in ("-    return a + b", "+    return b + a", "+++ new.txt", "+new"):
        assert f"\n{line}\n" in shown
    assert "calc.py" in say(tty, "/undo")
    assert (repo / "calc.py").read_text() == FILES["calc.py"] and not (repo / "new.txt").exists()
    assert "changed nothing" in say(tty, "/diff")


def test_plan_mode_changes_nothing_and_its_end_keeps_conversation_and_cache(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    write = call("write_file", path="new.txt", content="new\n")
    tty = talk(
        call("read_file", path="calc.py"), write, "<final>the plan</final>", write, DONE,
        args=("--approval=auto",),
    )  # fmt: skip
    assert "on" in say(tty, "/plan") and tty.screen().endswith("\nplan>")
    shown = say(tty, "add a file")
    assert "the plan" in shown and "/plan" in shown.rpartition("the plan")[2]
    assert "plan mode is on (/plan turns it off)" in shown
    assert not (repo / "new.txt").exists()
    assert ["plan" in prompt.rpartition("request:")[2] for prompt in server.prompts] == [True] * 3
    assert "off" in say(tty, "/plan") and tty.screen().endswith("\n>")
    assert "/plan" not in say(tty, "do it")
    assert (repo / "new.txt").exists()
    assert "plan mode" not in server.prompts[3].rpartition("request:")[2]
    bodies = [prompt.rpartition("Current user request:")[0] for prompt in server.prompts]
    assert all(new.startswith(old) for old, new in zip(bodies, bodies[1:]))
    assert server.generations[3].processed < server.generations[0].processed / 4


def test_model_lists_what_is_pulled_and_switches_within_the_session(
    run: Run, terminal: OpenTerminal, repo: Path
) -> None:
    with OllamaServer(models=["qwen3.5:4b", "other:1b"]) as server:
        server.script([], then=DONE)
        tty = terminal("--cwd", repo, "--host", server.url)
        tty.expect(PROMPT)
        say(tty, "first")
        shown = say(tty, "/model")
        assert "* qwen3.5:4b" in shown and "\n  other:1b" in shown
        refused = say(tty, "/model nope")
        assert "qwen3.5:4b, other:1b" in refused and "ollama pull nope" in refused
        assert "* qwen3.5:4b" in say(tty, "/model")
        assert "other:1b" in say(tty, "/model other:1b")
        assert "* other:1b" in say(tty, "/model")
        say(tty, "second")
        assert [g.request.body["model"] for g in server.generations] == ["qwen3.5:4b", "other:1b"]
        assert "first" in server.prompts[1] and requests(repo) == ["first", "second"]


def test_model_without_a_server_is_a_sentence_and_the_prompt_comes_back(
    talk: Talk, server: OllamaServer
) -> None:
    tty = talk()
    server.close()
    assert "ollama serve" in say(tty, "/model")
    assert "/help" in say(tty, "/help")


def test_raising_the_approval_mode_asks_once_and_lowering_it_does_not(
    talk: Talk, repo: Path
) -> None:
    write = call("write_file", path="new.txt", content="new\n")
    tty = talk(write, DONE, write, DONE)
    assert "ask" in say(tty, "/approval")
    tty.line("/approval auto")
    assert "Allow? /approval auto: everything runs unasked" in tty.expect("y(es) or no: ")
    assert "stays ask" in say(tty, "")
    tty.line("/approval auto")
    tty.expect("y(es) or no: ")
    assert "auto" in say(tty, "y")
    say(tty, "write it")
    assert (repo / "new.txt").exists()
    (repo / "new.txt").unlink()
    assert "never" in say(tty, "/approval never")
    say(tty, "write it")
    assert not (repo / "new.txt").exists()
    wrong = say(tty, "/approval anything")
    assert "no mode anything" in wrong and "never, ask, auto" in wrong


def test_sessions_are_listed_and_resumed_by_the_beginning_of_their_id(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    old = [f"20260101-00000{n}-abcdef" for n in (1, 2)]
    (repo / ".mini-coding-agent" / "sessions").mkdir(parents=True)
    for name in old:
        asked = [{"role": "user", "content": f"{text} of {name[-8]}"} for text in ("one", "two")]
        path = repo / ".mini-coding-agent" / "sessions" / f"{name}.json"
        path.write_text(json.dumps({"id": name, "history": asked}))
    broken = "20260101-000003-abcdef"
    (path.parent / f"{broken}.json").write_text("{")
    tty = talk(cols=120)
    say(tty, "a third one")
    shown = say(tty, "/sessions")
    assert re.search(rf"\n  {old[0]} +0 min ago +2 requests, first: one of 1\n", shown)
    assert re.search(rf"\n  session {broken} cannot be read: it is not JSON\n", shown)
    assert re.search(r"\n\* \S+ +0 min ago +1 request, first: a third one\n", shown)
    assert shown.index("a third one") < shown.index(old[0])
    unnamed = say(tty, "/resume")
    assert old[0] in unnamed and "/resume ID" in unnamed
    assert old[0] not in say(tty, "/session")
    assert "type more" in say(tty, "/resume 20260101-0000")
    assert "no session" in say(tty, "/resume 2025")
    assert "not a session id" in say(tty, "/resume ../../etc")
    assert "2 requests, last: two of 2" in say(tty, "/resume 20260101-000002")
    assert old[1] in say(tty, "/session")
    say(tty, "go on")
    assert "two of 2" in server.prompts[-1] and "a third one" not in server.prompts[-1]
    assert requests(repo) == ["one of 2", "two of 2", "go on"]


def test_compact_folds_now_and_says_what_it_saved(talk: Talk, server: OllamaServer) -> None:
    tty = talk()
    assert "nothing to fold" in say(tty, "/compact")
    for number in range(12):
        server.script([call("read_file", path="README.md", start=1, end=1)], then=DONE)
        say(tty, f"request {number} " + "with many words " * 100)
    before, after = map(int, re.findall(r"\b\d{3,}\b", say(tty, "/compact"))[-2:])
    assert after < before
    say(tty, "and now")
    assert "- user: request 0" in server.prompts[-1]
    assert len(server.prompts[-1]) < len(server.prompts[-2])
    assert "1 folds" in say(tty, "/context") or "1 fold" in tty.plain


@pytest.mark.parametrize("name", ["/clear", "/reset"])
def test_clear_begins_a_new_session_and_keeps_the_file_of_the_old_one(
    talk: Talk, repo: Path, server: OllamaServer, name: str
) -> None:
    tty = talk()
    say(tty, "remember the word heron")
    assert list_sessions(repo)[0].stem in say(tty, name)
    say(tty, "what word?")
    assert "heron" not in server.prompts[-1] and len(list_sessions(repo)) == 2
    assert requests(repo) == ["what word?"]


def test_memory_and_session_show_what_is_there(talk: Talk, repo: Path) -> None:
    tty = talk(call("read_file", path="calc.py"))
    say(tty, "look around")
    shown = say(tty, "/memory")
    assert "look around" in shown and "calc.py" in shown
    assert str(list_sessions(repo)[0]) in say(tty, "/session").replace("\n", "")


# Ctrl-C, Ctrl-D


@keys
def test_ctrl_c_at_the_prompt_drops_the_line(talk: Talk, repo: Path) -> None:
    tty = talk()
    for text in ("half a line", "another"):
        tty.send(text)
        tty.expect(text)
        tty.ctrl_c()
        assert "once more" not in tty.expect(PROMPT)
    say(tty, "a whole one")
    assert requests(repo) == ["a whole one"] and tty.process.poll() is None


def test_ctrl_c_twice_within_two_seconds_at_the_prompt_leaves(talk: Talk) -> None:
    tty = talk()
    tty.ctrl_c()
    assert "once more" in tty.expect(PROMPT)
    say(tty, "hello")
    tty.ctrl_c()
    assert "once more" in tty.expect(PROMPT)
    time.sleep(2.1)  # more than two seconds: it begins anew
    tty.ctrl_c()
    assert "once more" in tty.expect(PROMPT)
    tty.ctrl_c()
    assert tty.wait() == 130 and "Traceback" not in tty.plain
    assert tty.plain.endswith("\n") and tty.cursor()[1] == 0


def test_ctrl_d_leaves_with_the_code_of_the_last_request(talk: Talk) -> None:
    tty = talk()
    say(tty, "hello")
    tty.eof()
    assert tty.wait() == 0 and tty.cursor()[1] == 0


def test_ctrl_d_at_a_question_is_a_no_and_the_next_line_is_one_of_its_own(
    talk: Talk, repo: Path
) -> None:
    tty = talk(call("write_file", path="new.txt", content="new\n"))
    tty.line("write")
    tty.expect(QUESTION)
    tty.eof()
    assert "\n- write_file new.txt: denied\n" in tty.expect(ANSWERED)
    assert not (repo / "new.txt").exists()


def test_ctrl_c_at_a_question_and_in_a_command_stand_on_lines_of_their_own(
    talk: Talk, repo: Path
) -> None:
    begun = repo / "begun"
    command = f'"{sys.executable}" -c "open({str(begun)!r}, \'w\'); import time; time.sleep(60)"'
    tty = talk(call("run_shell", command=command, timeout=60), cols=300)
    tty.line("run")
    tty.expect(QUESTION)
    tty.ctrl_c()
    assert "\ninterrupted\n" in tty.expect(PROMPT)
    tty = talk(call("run_shell", command=command, timeout=60), args=("--approval=auto",), cols=300)
    tty.line("run")
    tty.expect("Ctrl-C stops it")
    for _ in range(1000):
        time.sleep(0 if begun.exists() else 0.01)
    tty.ctrl_c()
    shown = tty.expect(PROMPT)
    assert re.search(r"- run_shell .*: interrupted by the user\n", shown)
    assert "\ninterrupted\n" in shown and re.search(r"ran .*\(stopped\)", shown)


def test_ctrl_c_while_the_model_writes_ends_the_request_and_not_the_program(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    tty = talk(Reply("<final>a long answer</final>", hang=60, hang_after=10))
    tty.line("write")
    tty.expect("a l")
    tty.ctrl_c()
    assert "interrupted" in tty.expect(PROMPT)
    server.wait_for(cancelled=1)
    assert "done" in say(tty, "again") and requests(repo) == ["write", "again"]


def test_ctrl_c_while_a_command_of_ours_waits_for_the_server_keeps_the_conversation(
    talk: Talk, server: OllamaServer
) -> None:
    tty = talk()
    say(tty, "hello")
    server.faults["/api/tags"] = Reply("", status=500, hang=60)
    tty.line("/model")
    tty.expect("/model\n")
    tty.ctrl_c()
    tty.expect(PROMPT)
    assert "done" in say(tty, "still there?")


# What is seen while it works


def test_a_streamed_answer_is_there_while_the_server_still_writes(
    talk: Talk, server: OllamaServer
) -> None:
    text = "The first half.\nThe second half."
    tty = talk(Reply(f"<final>{text}</final>", hang=60, hang_after=7 + 24))
    tty.line("tell me")
    tty.expect("The first half.\nThe")
    assert not server.generations[0].ended and "<final" not in tty.plain
    tty.ctrl_c()
    tty.expect(PROMPT)


def test_a_streamed_answer_stands_there_once(talk: Talk) -> None:
    text = "One <b>bold</b> word, 日本語 🙂, a < b.\n\nThe end."
    tty = talk(Reply(f"<think>hm</think>\n<final>\n{text}\n</final>", chunk=1))
    say(tty, "tell me")
    assert (
        tty.screen(history=True).count("One <b>bold</b> word, 日本語 🙂, a < b.\n\nThe end.") == 1
    )
    assert "final" not in tty.plain and "hm" not in tty.screen(history=True).split("\n")


def test_what_follows_half_an_answer_begins_a_line(talk: Talk) -> None:
    tty = talk(Reply("<final>Half an answer</final>", drop_after=17), "<final>whole</final>")
    shown = say(tty, "tell me")
    assert "\nHalf an an\n[notice] " in shown
    assert "\nwhole\n" in shown


def test_what_a_subagent_answers_is_not_streamed(talk: Talk) -> None:
    replies = [call("delegate", task="look"), "<final>It prints hi</final>"]
    shown = say(talk(*replies, "<final>the answer</final>"), "ask it")
    assert "It prints hi" not in shown and shown.count("the answer") == 1


def test_json_is_not_streamed_to_a_terminal_either(talk: Talk) -> None:
    tty = talk("<final>the answer</final>", args=("--output=json",))
    assert say(tty, "tell me").count("the answer") == 1


PHASES = {
    "loading": (Reply(DONE, hang=0.4), {}),
    "reading": (Reply(DONE, hang=0.4), {"qwen3.5:4b": 16384}),
    "writing": (
        Reply(call("list_files"), hang=0.9, hang_after=20, chunk=2), {"qwen3.5:4b": 16384},
    ),
}  # fmt: skip
LIVE = {
    "loading": r"\rloading\D* \d s",
    "reading": r"\rreading the prompt \d s",
    "writing": r"\rwriting [1-9] s, 10 tokens, \d+\.\d/s",
}


@pytest.mark.parametrize("phase", PHASES)
def test_the_live_line_names_the_phase_and_leaves_nothing_behind(
    terminal: OpenTerminal, repo: Path, phase: str
) -> None:
    reply, loaded = PHASES[phase]
    with OllamaServer(loaded=loaded) as server:
        server.script([reply], then=DONE)
        tty = terminal("--cwd", repo, "--host", server.url)
        tty.expect(PROMPT)
        tty.line("work")
        tty.expect(re.compile(LIVE[phase]))
        tty.expect(PROMPT)
        shown = tty.screen(history=True)
        assert not re.search(r"reading the prompt|writing|tokens, \d|loading \d", shown)
        assert re.search(r"(?m)^done$", shown)


def test_the_live_line_names_the_tool_that_runs(talk: Talk, tmp_path: Path) -> None:
    tty = talk(waiting(tmp_path / "go"), args=("--approval=auto",))
    tty.line("work")
    assert not re.search(r" \d+ s", tty.expect(re.compile(r"\rrunning run_shell .*\)")))
    (tmp_path / "go").touch()
    tty.expect(PROMPT)
    assert "running" not in tty.screen(history=True)


def gated(gate: threading.Event) -> Callable[[str, Any], str]:
    """A reply that comes when the gate is open."""

    def reply(prompt: str, request: Any) -> str:
        assert gate.wait(30)
        return DONE

    return reply


def test_a_resize_while_it_works_fits_the_live_line_and_the_next_prompt(
    talk: Talk, repo: Path
) -> None:
    gate = threading.Event()
    tty = talk(DONE, gated(gate))
    say(tty, "load the model")
    tty.line("work")
    tty.expect(re.compile(r"\rreading the prompt \d+ s"))
    tty.resize(24, 18)
    tty.expect(re.compile(r"\rreadi\w*\.\.\.\w* \d+ s"))
    gate.set()
    tty.expect(PROMPT)
    assert not re.search(r"(?m)^readi", tty.screen(history=True))
    tty.resize(24, 60)
    tty.line("a line that is longer than any window which had only eighteen columns")
    tty.expect(ANSWERED)
    assert requests(repo)[-1].endswith("eighteen columns")


CALLS = {
    "list_files": (call("list_files"), r"\d+ entries"),
    "read_file": (call("read_file", path="calc.py"), "1 to 6"),
    "search": (call("search", pattern="return", path="."), "3 matches"),
    "patch_file": (
        call("patch_file", path="calc.py", old_text="a - b", new_text="0\n"), r"\+2 -1",
    ),
    "run_shell": (python("raise SystemExit(3)"), r"exit 3, \d\.\d s"),
}  # fmt: skip


def test_each_call_is_one_line_with_its_result_in_brief(talk: Talk) -> None:
    replies = [reply for reply, _ in CALLS.values()]
    shown = say(talk(*replies, args=("--approval=auto",), cols=200), "work")
    lines = [line for line in shown.split("\n") if re.search("- [a-z_]+ ", line)]
    assert len(lines) == len(CALLS)
    for (name, (_, brief)), line in zip(CALLS.items(), lines):
        assert re.search(rf"- {name} .*: .*{brief}", line)
    assert "- search return in .: 3 matches" in lines


ASKED = {
    "write_file": (
        call("write_file", path="pkg/new.py", content="a = 1\n" * 60),
        "Allow? write_file pkg/new.py: y(es), a(lways write_file), or why not: ",
    ),
    "patch_file": (
        call("patch_file", path="calc.py", old_text="a + b", new_text="b + a"),
        "Allow? patch_file calc.py: y(es), a(lways patch_file), or why not: ",
    ),
    "run_shell": (
        call("run_shell", command="make && make test PATTERN=everything"),
        "Allow? run_shell make && m...erything: y(es), a(lways this command), or why not: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_the_question_names_call_and_file_on_one_line(talk: Talk, name: str) -> None:
    reply, question = ASKED[name]
    tty = talk(reply, cols=85)
    tty.line("work")
    tty.expect(QUESTION)
    assert tty.screen().split("\n")[-1] == question.rstrip()
    assert "\n- " + name in say(tty, "no, use tabs") and "denied: no, use tabs" in tty.plain


def test_a_question_is_one_line_at_eighty_columns(talk: Talk) -> None:
    tty = talk(call("write_file", path="a/long/path/to/" + "some" * 30 + ".py", content="x\n"))
    tty.line("work")
    tty.expect(QUESTION)
    line = tty.screen().split("\n")[-1]
    assert (
        line.startswith("Allow? write_file a/lo") and line.endswith("why not:") and len(line) < 80
    )


def test_the_summary_leaves_out_the_time_of_the_questions(talk: Talk) -> None:
    tty = talk(call("write_file", path="new.txt", content="new\n"))
    tty.line("write")
    tty.expect(QUESTION)
    time.sleep(1.0)
    tty.line("y")
    shown = tty.expect(PROMPT)
    seconds = re.search(r"1 step, (\d+\.\d) s", shown)
    assert seconds and float(seconds[1]) < 0.9
    assert "/undo takes the changes to files back" in shown


WIDE = "数据/表格 😀" * 20


@pytest.mark.parametrize("cols", [40, 80, 200])
def test_a_call_keeps_to_its_line_on_narrow_and_wide_terminals(talk: Talk, cols: int) -> None:
    calls = [
        call("search", pattern="x" * 300), call("search", pattern=WIDE),
        call("read_file", path=WIDE), call("run_shell", command="echo " + "word " * 60),
        call("patch_file", path="calc.py", old_text="a + b", new_text="a"),
    ]  # fmt: skip
    tty = talk(*calls, args=("--approval=auto",), cols=cols)
    shown = say(tty, "work")
    lines = re.findall(r"(?m)^\r?(?:.*\r)?(- [a-z_]+ .*)$", shown)
    assert len(lines) == len(calls) and all(columns(line) <= cols for line in lines)
    assert sum(line.startswith("- ") for line in tty.screen(history=True).split("\n")) == len(calls)


NAMES = {
    "plain": "work",
    "wide": "项目文件夹",
    "emoji": "🙂🚀 work 👩‍💻 ❤️",
    "combining": "cafe\u0301 na\u0308ive",
    "marks that take no column": "कुत्ता",
    "long": "a" * 120,
    "long and wide": "数据" * 40,
}


@pytest.mark.parametrize("cols", [40, 200])
@pytest.mark.parametrize("name", NAMES)
def test_the_box_of_the_welcome_is_a_box(
    terminal: OpenTerminal, server: OllamaServer, tmp_path: Path, name: str, cols: int
) -> None:
    folder = tmp_path / NAMES[name]
    folder.mkdir()
    tty = terminal("--cwd", folder, "--host", server.url, "--model", NAMES[name], cols=cols)
    tty.expect(PROMPT)
    box = [line for line in tty.screen().split("\n") if line[:1] in ("+", "|")]
    assert len(box) >= 9 and box[0] == box[-1] and set(box[0]) == {"+", "-"}
    assert {columns(line) for line in box} == {len(box[0])} and len(box[0]) <= cols
    assert all(line.endswith((" |", "-+")) for line in box)


def test_a_narrow_terminal_gets_the_lines_without_the_box(talk: Talk) -> None:
    shown = talk(cols=36).screen()
    assert "+--" not in shown and "model      qwen3.5:4b" in shown
    assert all(columns(line) <= 36 for line in shown.split("\n"))


def test_the_welcome_says_what_was_resumed_and_that_plan_mode_is_on(talk: Talk) -> None:
    tty = talk()
    assert "resumed" not in tty.screen() and "branch" not in tty.screen()
    for text in ("one", "mend sub()"):
        say(tty, text)
    tty = talk(args=("--resume=latest", "--plan"))
    assert "resumed    2 requests, last: mend sub()" in tty.screen()
    assert "approval   ask, plan mode" in tty.screen() and tty.screen().endswith("plan>")


def test_notices_are_dim_and_errors_red(talk: Talk) -> None:
    tty = talk("<tool>{broken</tool>", call("read_file", path="missing.py"))
    say(tty, "work")
    assert re.search(r"\x1b\[2m\[notice\] ", tty.raw)
    assert re.search(r"\x1b\[31m- read_file missing\.py: no such file", tty.raw)
    assert re.search(r"\x1b\[2m1 step, ", tty.raw)


# Terminals that want no colours

WORK = [
    call("list_files"), "<tool>{broken</tool>", call("read_file", path="missing.py"),
    call("write_file", path="new.txt", content="new\n"), Reply("<final>all done</final>", hang=0.3),
]  # fmt: skip


def test_a_dumb_terminal_gets_no_escape_at_all(talk: Talk) -> None:
    tty = talk(*WORK, env={"TERM": "dumb"})
    tty.line("work")
    tty.expect(QUESTION)
    assert "all done" in say(tty, "y")
    say(tty, "/diff")
    say(tty, "/nothing")
    assert "\x1b" not in tty.raw


def test_no_color_means_no_colours_and_no_live_line(
    talk: Talk, terminal: OpenTerminal, server: OllamaServer, repo: Path
) -> None:
    tty = talk(*WORK, env={"NO_COLOR": "1"})
    tty.line("work")
    tty.expect(QUESTION)
    assert "all done" in say(tty, "y")
    assert not SGR.search(tty.raw) and "reading the prompt" not in tty.raw
    server.script(WORK)
    once = terminal("--cwd", repo, "--host", server.url, "-p", "work", env={"NO_COLOR": "1"})
    once.expect(QUESTION)
    once.line("y")
    assert once.wait() == 0 and "all done" in once.plain and "\x1b" not in once.raw


def test_an_empty_no_color_changes_nothing(talk: Talk) -> None:
    tty = talk(env={"NO_COLOR": ""})
    say(tty, "work")
    assert SGR.search(tty.raw)


def test_keys_hit_while_it_works_are_the_next_request(
    talk: Talk, repo: Path, server: OllamaServer
) -> None:
    gate = threading.Event()
    tty = talk(gated(gate))
    tty.line("one")
    server.wait_for(1)
    tty.line("two")
    gate.set()
    tty.expect(PROMPT)
    tty.expect(PROMPT)
    assert requests(repo) == ["one", "two"]
