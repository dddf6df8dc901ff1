"""Approvals: what the human sees before something happens, and what an answer allows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import FILES, Agent, Git, OpenTerminal, Run, Spawn
from ollama_replies import call, shell, write
from ollama_server import OllamaServer, Reply

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX commands and links")
DONE = "<final>all said</final>"
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\b\x7f\x85\u202e\u2066\u200b\u200d\u2060\ufeff\u2028\xa0"
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def questions(err: str) -> list[str]:
    """What stands before each question, from the end of the one before."""
    return err.split("Allow?")[:-1]


def session(root: Path) -> dict[str, Any]:
    (file,) = (root / ".mini-coding-agent" / "sessions").glob("*.json")
    loaded: dict[str, Any] = json.loads(file.read_bytes())
    return loaded


@pytest.fixture
def agent(agent: Agent) -> Agent:
    """agent(replies, *args, stdin=None) with room for many steps."""
    room = ("--max-steps", "60", "--max-new-tokens", "9000", "--num-ctx", "60000")
    return lambda replies, *args, **kwargs: agent(replies, *room, *args, **kwargs)


# What is shown: changes of files


def test_the_diff_of_a_patch_stands_before_the_question(agent: Agent) -> None:
    patch = call("patch_file", path="calc.py", old_text="a + b", new_text="b + a")
    (before,) = questions(agent([patch], stdin="go\nn\n").err)
    for line in ("--- calc.py", "+++ calc.py", "-    return a + b", "+    return b + a"):
        assert f"\n{line}" in before
    assert "\n     return a + b" not in before and "\n def add(a, b):\n" in before
    assert "\x1b" not in before


def test_a_new_file_an_empty_one_and_a_missing_last_newline_are_shown_as_such(agent: Agent) -> None:
    replies = [write("new.txt", "one\ntwo"), write("pkg/empty.txt", ""), write("calc.py", "")]
    new, empty, emptied = questions(agent(replies, stdin="go\nn\nn\nn\n").err)
    assert "/dev/null" in new and "\n+one\n+two\n" in new and "No newline at end of file" in new
    assert "pkg/empty.txt" in empty
    assert emptied.partition("\n+++ ")[2].count("\n-") == FILES["calc.py"].count("\n")


def test_an_answer_that_comes_through_a_pipe_is_shown_behind_its_question(agent: Agent) -> None:
    done = agent([write("new.txt"), write("more.txt")], stdin="go\nn\n")
    assert "or why not: n\n- write_file new.txt: denied\n" in done.err
    assert "or why not: \n- write_file more.txt: denied\n" in done.err


@pytest.mark.parametrize(("color", "expected"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_the_diff_is_coloured_on_a_terminal_that_wants_colours(
    repo: Path, server: OllamaServer, terminal: OpenTerminal, color: Any, expected: bool
) -> None:
    server.script([call("patch_file", path="calc.py", old_text="a + b", new_text="b + a")])
    with terminal("--cwd", repo, "--host", server.url, "go", env=color) as term:
        term.expect("Allow?")
        colors = [re.search(rf"(\x1b\[[0-9;]+m){re.escape(s)}    return", term.raw) for s in "-+"]
        assert [bool(found) for found in colors] == [expected] * 2
        assert "\n-    return a + b\n+    return b + a\n" in term.plain
    if expected:
        assert colors[0] and colors[1] and colors[0][1] != colors[1][1]


@pytest.mark.parametrize(("lines", "clipped"), [(197, False), (198, True), (1000, True)])
def test_a_diff_over_200_lines_is_clipped_in_the_middle_with_the_number(
    agent: Agent, lines: int, clipped: bool
) -> None:
    content = "".join(f"line {number}\n" for number in range(lines))
    (before,) = questions(agent([write("new.txt", content)], stdin="go\nn\n").err)
    shown = re.findall(r"\n\+line (\d+)", before)
    gone = re.findall(r"\n\W*(\d+) lines", before)
    assert shown[0] == "0" and shown[-1] == str(lines - 1) and len(shown) + 3 <= 200
    assert [int(number) for number in gone] == [lines - len(shown)] * clipped


# What is shown: commands


def test_a_command_is_shown_with_all_its_lines_and_where_it_runs(repo: Path, agent: Agent) -> None:
    lines = ["echo one", "", "  touch two   # " + "long " * 500, f"echo{' ' * 300}; touch three"]
    (before,) = questions(agent([shell("\n".join(lines))], stdin="go\nn\n").err)
    at = 0
    for line in lines:
        at = before.index(line, at) + len(line)
    assert str(repo) in before and before.count("\n") >= 5
    assert not {"two", "three"} & {path.name for path in repo.iterdir()}


LONG = {
    "touch evil" + "\n" * 101 + "ls": ["touch evil", "[... 101 blanks ...]", "ls", "102 lines"],
    "touch evil\n" + " \t\n" * 60 + "ls": ["touch evil", "[... 181 blanks ...]", "ls", "62 lines"],
    "touch evil;" + " " * 5000 + "ls": ["touch evil;", "[... 5000 blanks ...]", "ls", "in "],
    "touch evil\n" + "# x\n" * 300 + "ls": ["touch evil", *["# x"] * 300, "ls", "302 lines"],
    "a\n\n\nb": ["a", "", "", "b", "4 lines"],
}


@pytest.mark.parametrize("command", LONG)
def test_blanks_push_no_line_of_a_command_away_and_its_lines_are_counted(command: str) -> None:
    shown = mca.Command(command, 20, Path("/work")).preview()
    lines = [line.strip() for line in shown.splitlines()]
    assert [line[: len(want)] for line, want in zip(lines, LONG[command])] == LONG[command]
    assert shown.splitlines()[-1].endswith(f"in {Path('/work')}, at most 20 s")
    assert max(map(len, shown.splitlines())) < 100


VERDICTS = {  # risky, policy, read-only -> what the gate says
    (False, "ask", False): "allow", (False, "never", True): "allow", (True, "ask", False): "ask",
    (True, "auto", False): "allow", (True, "never", False): "deny", (True, "ask", True): "deny",
    (True, "auto", True): "deny", (True, "", False): "deny", (True, "AUTO", False): "deny",
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_the_policy_is_a_table(case: tuple[bool, str, bool]) -> None:
    assert mca.decide(*case).name.lower() == VERDICTS[case]


def test_a_command_under_another_argument_name_is_shown_as_it_will_run(agent: Agent) -> None:
    done = agent([call("bash", cmd="touch a.txt; touch b.txt")], stdin="go\nn\n")
    assert "touch a.txt; touch b.txt" in questions(done.err)[0]


BLANKS = {
    "line tabulation": "\x0b", "next line": "\x85", "C1": "\x9b", "no-break space": "\xa0",
    "soft hyphen": "\xad", "Arabic letter mark": "\u061c", "en quad": "\u2000",
    "zero-width space": "\u200b", "right-to-left override": "\u202e", "isolate": "\u2067",
    "word joiner": "\u2060", "byte order mark": "\ufeff", "line separator": "\u2028",
    "ideographic space": "\u3000", "tag": "\U000e0041", "private use": "\ue000",
    "grapheme joiner": "\u034f", "Hangul filler": "\u3164", "halfwidth filler": "\uffa0",
    "Hangul choseong filler": "\u115f", "Braille blank": "\u2800", "Khmer vowel": "\u17b4",
    "variation selector": "\ufe01", "variation selector supplement": "\U000e0101",
    "Mongolian variation selector": "\u180f", "null note head": "\U0001d159",
    "Khitan filler": "\U00016fe4", "object replacement": "\ufffc", "half fill space": "\u303f",
}  # fmt: skip


@pytest.mark.parametrize("name", BLANKS)
def test_what_a_reader_cannot_see_is_spelt_out(name: str) -> None:
    char = BLANKS[name]
    shown = mca.visible(f"rm a{char}b")
    assert char not in shown and f"{ord(char):x}" in shown
    assert mca.visible("grüße, 漢字 und ✓") == "grüße, 漢字 und ✓"


def test_the_question_spells_out_what_commands_paths_and_files_hide(
    repo: Path, agent: Agent
) -> None:
    (repo / "evil.txt").write_bytes(f"old{EVIL}old\n".encode())
    replies = [
        shell(f"echo one{EVIL}\necho two"), write(f"new{EVIL}.txt"),
        write("plain.txt", f"new{EVIL}new\n"),
        write("evil.txt", "harmless\n"),
    ]  # fmt: skip
    done = agent(replies, stdin="go\nn\nn\nn\nn\n")
    asked = questions(done.err)
    assert len(asked) == 4 and not RAW.search(done.err)
    for before in asked:
        for spelt in (
            r"\x1b]0;owned\x07",
            r"\x1b[2J",
            r"\x9b31m",
            r"\r|\x0d",
            r"\u202e",
            r"\u200b",
        ):
            assert any(form in before for form in spelt.split("|")), (spelt, before)
    assert "echo two" in asked[0]


@posix
def test_the_question_shows_where_a_link_leads(repo: Path, agent: Agent) -> None:
    (repo / "harmless.txt").symlink_to("calc.py")
    (before,) = questions(agent([write("harmless.txt")], stdin="go\nn\n").err)
    assert "calc.py" in before


# Nothing raw reaches the terminal


@posix
def test_nothing_that_the_model_or_a_file_says_reaches_the_output_raw(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    server.faults["/api/tags"] = Reply(body={"models": [{"name": f"model{EVIL}"}]})
    (repo / f"name{EVIL}.txt").write_text(f"text {EVIL} with wanted\n")
    replies = [
        call(f"tool{EVIL}", path="x"), call("read_file", path=f"missing{EVIL}"),
        call("search", pattern=f"nothing{EVIL}"), call("search", pattern="wanted"),
        call("read_file", path=f"name{EVIL}.txt"), call("list_files", path=f"folder{EVIL}"),
        call("patch_file", path="calc.py", old_text=f"no{EVIL}", new_text="x"),
        call("read_file", path="calc.py", **{f"odd{EVIL}": 1}),
        shell(f"printf '%s' '{EVIL}'; false"), write(f"new{EVIL}.txt", f"{EVIL}\n"),
        call("delegate", task=f"look{EVIL}"), f"<final>child {EVIL}</final>",
        f"<tool>{{broken {EVIL}</tool>", f"<final>answer {EVIL}</final>",
        Reply(f"boom {EVIL}", status=500), Reply(f"boom {EVIL}", status=500),
    ]  # fmt: skip
    commands = [
        "/memory",
        "/sessions",
        "/session",
        "/model",
        "/diff",
        f"/no{EVIL}".replace("\r", ""),
    ]
    commands += ["/resume x\x1b[2J", "/context full", "/undo", "/undo"]
    done = agent(replies, "--approval", "auto", stdin="go\nagain\n" + "\n".join(commands) + "\n")
    assert not RAW.search(done.out) and not RAW.search(done.err), done.out + done.err
    assert r"answer \x1b]0;owned" in done.out and r"boom \x1b]0;owned" in done.err
    assert r"tool\x1b" in done.err and r"new\x1b" in done.out and r"model\x1b" in done.out


@posix
def test_a_streamed_answer_and_the_progress_lines_bring_no_escape_to_a_terminal(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    (repo / f"name{EVIL}.txt").write_text("wanted\n")
    server.script(
        [call("search", pattern="wanted"), Reply(f"<final>see {EVIL} end</final>", chunk=1)]
    )
    with terminal("--cwd", repo, "--host", server.url, "go") as term:
        term.expect(" end")
        term.wait()
        own = r"\x1b\[[0-9;]*[mK]|\x1b\[\?2004[hl]|\r\n|\r(?=\x1b\[K)"
        assert not RAW.search(re.sub(own, "", term.raw.replace("\r\x1b[K", "")))
        assert r"\x1b]0;owned" in term.plain


@posix
def test_the_banner_shows_odd_names_harmless(
    tmp_path: Path, server: OllamaServer, run: Run, git: Git
) -> None:
    folder = tmp_path / f"work{EVIL}"
    folder.mkdir()
    git("init", "-q", cwd=folder)
    git("symbolic-ref", "HEAD", "refs/heads/main\u202e\u200b", cwd=folder)
    server.script([], then=DONE)
    done = run("--cwd", folder, "--host", server.url, "--model", "qwen3.5:4b", stdin="")
    assert done.code == 0 and not RAW.search(done.err) and not RAW.search(done.out)
    assert r"\u2028\xa0" in done.err and r"main\u202e\u200b" in done.err


@posix
def test_odd_session_names_and_ids_are_shown_harmless(repo: Path, agent: Agent) -> None:
    folder = repo / ".mini-coding-agent" / "sessions"
    folder.mkdir(parents=True)
    history = [{"role": "user", "content": f"old {EVIL}"}]
    for name in ("evil\x1b[2J", "good"):
        (folder / f"{name}.json").write_text(json.dumps({"id": name, "history": history}))
    (folder / "other.json").write_text(
        json.dumps({"id": f"x{EVIL}", "version": EVIL, "history": []})
    )
    done = agent([], stdin="/sessions\n/resume other\n/resume good\n/memory\n")
    assert not RAW.search(done.out) and not RAW.search(done.err)
    assert "good" in done.out and r"old \x1b]0;owned" in done.out
    for wanted in ("evil\x1b[2J", "other", f"no{EVIL}"):
        done = agent([], "--resume", wanted, "x")
        assert done.code == 2 and not RAW.search(done.err) and not RAW.search(done.out)


# What is shown is what happens


def swap_for_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parents[1] / "outside.txt")


def swap_folder(file: Path) -> None:
    shutil.move(file.parent, file.parents[2] / "elsewhere")
    file.parent.symlink_to(file.parents[2] / "elsewhere")


MEANWHILE: dict[str, Callable[[Path], Any]] = {
    "edited": lambda file: file.write_text("edited by the human\n"),
    "removed": lambda file: file.unlink(),
    "a folder now": lambda file: (file.unlink(), file.mkdir()),
    "a link now": swap_for_link,
    "its folder a link now": swap_folder,
}


def tree(root: Path) -> dict[str, Any]:
    """Every path below a folder, but for the agent's state, and what it holds."""
    kept = (path for path in root.rglob("*") if ".mini-coding-agent" not in path.parts)
    return {
        str(path): str(path.readlink())
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in kept
    }


@posix
@pytest.mark.parametrize("how", MEANWHILE)
def test_what_changes_while_the_question_stands_is_not_overwritten(
    tmp_path: Path, repo: Path, server: OllamaServer, spawn: Spawn, how: str
) -> None:
    (tmp_path / "outside.txt").write_text("outside\n")
    server.script([write("pkg/util.py", "new\n"), DONE])
    process = spawn("--cwd", repo, "--host", server.url, stdin=subprocess.PIPE)
    assert process.stdin and process.stderr
    process.stdin.write(b"go\n")
    process.stdin.flush()
    said = b""
    while b"Allow?" not in said:
        said += process.stderr.read1(4096) or pytest.fail(repr(said))  # type: ignore[attr-defined]
    MEANWHILE[how](repo / "pkg" / "util.py")
    before = tree(tmp_path)
    process.communicate(b"y\n", timeout=20)
    assert tree(tmp_path) == before and process.returncode == 0
    assert "\nerror: " in server.prompts[-1]


def test_a_file_that_appears_while_the_question_stands_is_not_overwritten(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    server.script([write("new.txt", "the model's\n"), DONE])
    with terminal("--cwd", repo, "--host", server.url) as term:
        term.expect("> ")
        term.line("go")
        term.expect("Allow?")
        (repo / "new.txt").write_text("the human's\n")
        term.line("y")
        term.expect("all said")
    assert (repo / "new.txt").read_text() == "the human's\n"
    assert "changed in the meantime" in server.prompts[-1]


@posix
def test_every_line_of_an_allowed_command_runs_as_shown(repo: Path, agent: Agent) -> None:
    command = 'x=" two  words"\nprintf %s "$x" > one.txt\ncat <<EOF > two.txt\n$x!\nEOF\n'
    agent([shell(command)], stdin="go\ny\n")
    assert (repo / "one.txt").read_text() == " two  words"
    assert (repo / "two.txt").read_text() == " two  words!\n"


# The answers

ANSWERS = {
    "y": True, "yes": True, " YES ": True, "n": False, "no": False, "": False, "  ": False,
    "ok": False, "yes please": False, "y y": False, "j": False, "true": False, "1": False,
    "\x1b[Ay": False, "y\x00": False, "y;": False, "do it in b.txt": False,
}  # fmt: skip


def test_only_yes_allows_and_what_else_is_said_is_the_reason_for_the_model(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    done = agent(
        [write(f"f{number}.txt") for number in range(len(ANSWERS))],
        stdin="\n".join(["go", *ANSWERS, ""]),
    )
    assert done.code == 0 and len(questions(done.err)) == len(ANSWERS)
    written = [(repo / f"f{number}.txt").exists() for number in range(len(ANSWERS))]
    assert dict(zip(ANSWERS, written)) == ANSWERS
    refusals = re.findall(r"error: approval denied for write_file(.*)", server.prompts[-1])
    for answer, said in zip([a for a, allowed in ANSWERS.items() if not allowed], refusals):
        plain_no = answer.strip() in ("", "n", "no")
        assert said == "" if plain_no else mca.visible(answer.strip())[-3:] in mca.visible(said)


@posix
def test_always_counts_for_this_file_tool_or_exactly_this_command(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    patch = call("patch_file", path="a.txt", old_text="x", new_text="y")
    replies = [
        write("a.txt"), write("b.txt"), patch, shell("touch c.txt"), shell("touch c.txt"),
        shell("touch  c.txt"), shell("touch c.txt d.txt"), shell("TOUCH c.txt"), shell("touch c.txt"),
    ]  # fmt: skip
    done = agent(replies, stdin="go\na\nn\nALWAYS\nn\nn\nn\n")
    asked = [
        re.findall(r"touch +c.txt.*|TOUCH.*|[a-z]+\.txt", before)[-1]
        for before in questions(done.err)
    ]
    assert asked == [
        "a.txt",
        "a.txt",
        "touch c.txt",
        "touch  c.txt",
        "touch c.txt d.txt",
        "TOUCH c.txt",
    ]
    assert (repo / "b.txt").exists() and (repo / "a.txt").read_text() == "x\n"
    assert (repo / "c.txt").exists() and not (repo / "d.txt").exists()


@posix
def test_what_was_always_allowed_is_asked_again_by_the_next_program(
    repo: Path, agent: Agent
) -> None:
    agent([write("a.txt"), shell("touch b.txt")], stdin="go\na\na\n")
    file = next((repo / ".mini-coding-agent" / "sessions").glob("*.json"))
    assert '"always' not in file.read_text()
    done = agent([write("c.txt"), shell("touch b.txt")], "--resume", "latest", stdin="go\nn\nn\n")
    assert len(questions(done.err)) == 2 and not (repo / "c.txt").exists()


def test_neither_a_session_nor_a_project_file_changes_what_is_asked(
    repo: Path, agent: Agent
) -> None:
    allowed = {"approval": "auto", "approval_policy": "auto", "always": ["write_file"]}
    settings = {"history": [{"role": "user", "content": "x", **allowed}], "plan": False, **allowed}
    folder = repo / ".mini-coding-agent" / "sessions"
    folder.mkdir(parents=True)
    for file in (
        folder / "old.json",
        folder.parent / "config.json",
        repo / ".mini-coding-agent.json",
    ):
        file.write_text(json.dumps({**settings, "id": "old"}))
    (repo / ".env").write_text("MCA_APPROVAL=auto\nOLLAMA_HOST=http://127.0.0.1:1\n")
    (repo / "pyproject.toml").write_text('[tool.mini-coding-agent]\napproval = "auto"\n')
    done = agent([write("a.txt")], "--resume", "old", stdin="go\nn\n")
    assert len(questions(done.err)) == 1 and not (repo / "a.txt").exists() and done.code == 0


def test_end_of_input_at_the_question_is_a_plain_no(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    server.script([shell("touch marker"), "<final>first</final>", "<final>second</final>"])
    with terminal("--cwd", repo, "--host", server.url) as term:
        term.expect("> ")
        term.line("go")
        term.expect("Allow?")
        term.eof()
        term.expect("first")
        term.expect("> ")
        term.line("still there?")
        term.expect("second")
    assert not (repo / "marker").exists()
    assert "error: approval denied for run_shell\n" in server.prompts[1]


def test_ctrl_c_at_the_question_is_a_no_that_ends_the_request_and_the_transcript_says_so(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    server.script([shell("touch marker"), "<final>second answer</final>"])
    with terminal("--cwd", repo, "--host", server.url) as term:
        term.expect("> ")
        term.line("make a marker")
        term.expect("Allow?")
        term.ctrl_c()
        term.expect("interrupted")
        term.expect("> ")
        term.line("and now")
        term.expect("second answer")
    assert not (repo / "marker").exists() and len(server.prompts) == 2
    assert "touch marker" in server.prompts[1] and "interrupted by the user" in server.prompts[1]


def test_lines_typed_ahead_answer_no_question(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    with terminal("--cwd", repo, "--host", server.url) as term:

        def reply(prompt: str, request: Any) -> str:
            for _ in range(3):
                term.line("yes")
                term.expect("yes\n")
            return shell("touch marker")

        server.script([reply, DONE])
        term.expect("> ")
        term.line("go")
        term.expect("Allow?")
        term.line("no, wait")
        term.expect("all said")
    assert not (repo / "marker").exists() and "no, wait" in server.prompts[-1]


# Who is asked, and who is not


def test_a_call_that_cannot_work_bothers_nobody(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    (repo / "data.bin").write_bytes(b"\0" * 20)
    replies = [
        call("run_shell"), shell(""), shell("   "), shell("echo \0"), shell("echo \ud800"),
        call("run_shell", command=["ls"]),
        call("run_shell", command="touch marker", timeout="soon"),
        call("run_shell", command="touch marker", timeout=10**9),
        call("run_shell", command="touch marker", sudo=True),
        call("write_file", path="a.txt"), write("pkg"), write("../a.txt"), write("a\0b"), write(""),
        call("patch_file", path="calc.py", old_text="not there", new_text="x"),
        call("patch_file", path="calc.py", old_text="return", new_text="x"),
        call("patch_file", path="calc.py", old_text="a + b", new_text="a + b"),
        call("patch_file", path="missing.py", old_text="a", new_text="b"),
        call("patch_file", path="data.bin", old_text="\0", new_text="b"),
        call("launch_rocket", command="touch marker"),
    ]  # fmt: skip
    done = agent(replies, stdin="go\n" + "y\n" * len(replies))
    assert not questions(done.err) and not (repo / "marker").exists()
    assert server.prompts[len(replies)].count("\nerror: ") == len(replies)


QUIET = ["ls", "ls -la pkg", "cat calc.py", "wc -l calc.py", "head -n 3 calc.py", "git status"]
QUIET += ["git log --oneline -3", "git diff", "grep -n def calc.py", "pwd"]


@posix
def test_a_command_that_plainly_reads_runs_unasked_and_is_announced_in_one_line(
    git_repo: Path, server: OllamaServer, agent: Agent
) -> None:
    done = agent([shell(command) for command in QUIET], stdin="go\n")
    assert not questions(done.err) and server.prompts[-1].count("exit_code: 0") == len(QUIET)
    for command in QUIET:
        lines = [line for line in done.err.splitlines() if f"run_shell {command}:" in line]
        assert len(lines) == 1 and "not asked" in lines[0]


LOUD = [
    "touch marker", "ls; touch marker", "ls && touch marker", "ls || touch marker",
    "ls & touch marker", "ls | tee marker", "ls > marker", "ls >> marker", "ls $(touch marker)",
    "ls `touch marker`", 'ls "$(touch marker)"', "ls\ntouch marker", "ls\rtouch marker",
    "ls <(touch marker)", "A=1 ls", "env touch marker", "sh -c 'touch marker'", "ls ${IFS}",
    "git log --output=marker", "git diff --ext-diff", "git diff --output marker",
    "git -c alias.x='!touch marker' x", "git --exec-path=. x", "git difftool", "git grep -Otouch def",
    "find . -exec touch marker ;", "find . -delete", "find . -fprint marker", "sort -o marker calc.py",
    "sort --compress-program=./x calc.py", "rg --pre ./x def", "sed -n 'w marker' calc.py",
    "sed -i s/a/b/ calc.py", "tee marker", "xargs touch", "awk 'BEGIN{system(\"touch marker\")}'",
    "pytest", "make", "python calc.py", "npm test", "tail -f calc.py", "tail -F calc.py", "yes",
    "cat ../secret", "cat /etc/passwd", "cat ~/x", "cat .git/config", "cat outside", "uniq calc.py marker",
    "cat .mini-coding-agent/sessions/x.json", "ls *", "ls --color=always\u2028", "cat /dev/zero",
    "cd .. && ls", "exit", ". ./x", "alias ls=touch", "diff calc.py /etc/passwd",
]  # fmt: skip


@posix
def test_a_command_that_might_do_more_is_asked_about_and_does_not_run_without_a_yes(
    git_repo: Path, server: OllamaServer, agent: Agent
) -> None:
    (git_repo.parent / "secret").write_text("hidden text")
    (git_repo / "outside").symlink_to("../secret")
    (git_repo / "x").write_text("#!/bin/sh\ntouch marker\n")
    (git_repo / "x").chmod(0o755)
    (git_repo / "Makefile").write_text("all:\n\ttouch marker\n")
    done = agent([shell(command) for command in LOUD], stdin="go\n" + "\n" * len(LOUD))
    asked = questions(done.err)
    unasked = [
        c for c in LOUD if not any(mca.visible(c.split("\n")[0]) in before for before in asked)
    ]
    assert unasked == [] and len(asked) == len(LOUD)
    assert not (git_repo / "marker").exists() and "hidden text" not in server.prompts[-1]


@posix
def test_programs_that_the_repository_names_run_for_no_unasked_command(
    git_repo: Path, server: OllamaServer, agent: Agent, git: Git, agent_env: dict[str, str]
) -> None:
    for name in ("ls", "git", "cat", "evil"):
        (git_repo / name).write_text("#!/bin/sh\ntouch marker\n")
        (git_repo / name).chmod(0o755)
    first = {"PATH": f"{git_repo}:.:{agent_env['PATH']}"}
    done = agent([shell("ls pkg"), shell("cat calc.py")], stdin="go\n", env=first)
    assert "util.py" in server.prompts[-1] and "def add" in server.prompts[-1]
    git("config", "core.fsmonitor", "./evil", cwd=git_repo)
    done = agent([shell("git status"), shell("git diff")], stdin="go\nn\nn\n", env=first)
    assert len(questions(done.err)) == 2 and not (git_repo / "marker").exists()


def test_never_and_subagents_deny_the_shell_altogether(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    commands = [shell("ls"), shell("touch marker")]
    done = agent(commands, "--approval", "never", stdin="go\ny\ny\n")
    assert server.prompts[2].count("error: approval denied for run_shell") == 2
    assert not questions(done.err)
    for mode in ("ask", "auto", "never"):
        replies = [call("delegate", task="look"), *commands, write("marker"), DONE]
        done = agent(replies, "--approval", mode, stdin="go\ny\ny\n")
        (event,) = [e for e in latest(repo)["history"] if e.get("name") == "delegate"]
        said = [e["content"] for e in event["child"] if e["role"] == "tool"]
        assert [text.startswith("error: approval denied for ") for text in said] == [True] * 3
        assert not questions(done.err)
    assert not (repo / "marker").exists()


def latest(root: Path) -> dict[str, Any]:
    store = mca.SessionStore(root / ".mini-coding-agent" / "sessions")
    loaded: dict[str, Any] = store.load(store.find("latest"))
    return loaded


def test_a_second_call_in_one_reply_is_not_run_and_not_allowed_by_the_first_yes(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    done = agent([write("one.txt") + "\n" + shell("touch two.txt")], stdin="go\ny\nno\n")
    assert (repo / "one.txt").exists() and not (repo / "two.txt").exists()
    assert len(questions(done.err)) == 1
    agent([Reply(write("three.txt") + write("four.txt"), chunk=9999)], "--approval", "auto", "go")
    assert (repo / "three.txt").exists() and not (repo / "four.txt").exists()
    assert re.search(r"only the first of your calls", server.prompts[-1], re.IGNORECASE)


@posix
@pytest.mark.parametrize(
    "reply",
    [shell("touch marker"), call("patch_file", path="calc.py", old_text="a + b", new_text="b + a")],
    ids=["command", "patch"],
)
def test_a_one_shot_run_without_a_terminal_denies_and_names_the_flag_but_still_looks(
    repo: Path, server: OllamaServer, agent: Agent, reply: str
) -> None:
    before = tree(repo)
    done = agent([shell("ls pkg"), reply], "go", stdin="y\ny\n")
    assert "util.py" in server.prompts[1] and "--approval" in server.prompts[2]
    assert "--approval" in done.err and not questions(done.err) and tree(repo) == before
