"""The loop: steps and limits, slips, approvals, delegation, repeated calls, a tool of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import Agent, Make, OpenTerminal, Run
from ollama_replies import call, python, write
from ollama_server import OllamaServer
from program import PROGRAM

LOOK = call("list_files")


def results(agent: Any) -> list[str]:
    """What the tools answered."""
    return [event["content"] for event in agent.session["history"] if event["role"] == "tool"]


def tails(prompts: list[str]) -> list[str]:
    return [prompt.rpartition("\nCurrent user request:\n")[2] for prompt in prompts]


# Steps and limits


def test_the_call_after_the_last_step_is_not_run_and_the_answer_says_why_and_how_to_go_on(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    replies = [write("one.txt"), write("two.txt"), write("three.txt")]
    done = agent(replies, "--approval", "auto", "--max-steps", "2", "write three files")
    assert len(server.prompts) == 3 and done.code == 3
    assert (repo / "two.txt").exists() and not (repo / "three.txt").exists()
    assert ["answer now" in tail for tail in tails(server.prompts)] == [False, False, True]
    for wanted in ("limit of 2", "one.txt", "two.txt", "--max-steps"):
        assert wanted in done.out
    assert "three.txt" not in done.out


def test_the_answer_after_the_last_step_ends_the_request_well(
    server: OllamaServer, agent: Agent
) -> None:
    done = agent([LOOK, "<final>six files</final>"], "--max-steps", "1", "count")
    assert (done.code, done.out.strip(), len(server.prompts)) == (0, "six files", 2)


def test_after_a_limit_the_conversation_goes_on_with_fresh_steps(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    replies = [write("one.txt"), write("two.txt"), write("two.txt"), "<final>both</final>"]
    done = agent(
        replies, "--approval", "auto", "--max-steps", "1", stdin="write two files\ngo on\n"
    )
    assert done.code == 0 and "both" in done.out
    assert (repo / "two.txt").exists() and "wrote one.txt" in server.prompts[-1]


NO_STEP = {
    "malformed": "<tool>{broken</tool>",
    "unknown tool": call("launch_rocket"),
    "invalid arguments": call("read_file", path="calc.py", start=0),
    "denied": write("no.txt"),
}


@pytest.mark.parametrize("name", NO_STEP)
def test_what_is_not_executed_costs_no_step(make: Make, name: str) -> None:
    agent = make(*[NO_STEP[name]] * 3, LOOK, max_steps=1, approval_policy="never")
    assert agent.ask("look") == "done"
    assert "[F] calc.py" in results(agent)[-1] and agent.run.steps == 1


def test_a_call_that_fails_costs_a_step(make: Make) -> None:
    agent = make(call("read_file", path="missing.txt"), write("a.txt"), max_steps=1)
    answer = agent.ask("look")
    assert "limit of 1" in answer and results(agent)[0].startswith("error: ")


@pytest.mark.parametrize(("max_steps", "most"), [(1, 5), (2, 6), (3, 9), (6, 18)])
@pytest.mark.parametrize("name", ["malformed", "unknown tool", "denied"])
def test_slips_are_free_up_to_a_cap_of_model_calls(
    make: Make, name: str, max_steps: int, most: int
) -> None:
    replies = [NO_STEP[name].replace("no.txt", f"{n}.txt") for n in range(40)]
    agent = make(*replies, max_steps=max_steps, approval_policy="never")
    answer = agent.ask("look")
    assert len(agent.model_client.prompts) == most
    assert "replies" in answer and "nothing changed" in answer


def test_the_reminder_after_a_slip_is_in_the_next_prompt_together_with_the_slip(make: Make) -> None:
    agent = make('<tool>{"name": broken}</tool>', LOOK)
    agent.ask("look")
    _, second, _ = agent.model_client.prompts
    assert '{"name": broken}' in second and "[notice]" in second


def test_a_window_too_small_for_the_rules_ends_the_request_and_says_so(
    server: OllamaServer, agent: Agent
) -> None:
    done = agent([], "--num-ctx", "1024", "hello")
    assert done.code == 3 and server.prompts == []
    assert "1024" in done.out and "--num-ctx" in done.out


# Calls that are wrong


def test_an_unknown_tool_is_answered_with_the_names_that_there_are(make: Make) -> None:
    agent = make(call("launch_rocket", target="moon"))
    agent.ask("go")
    (text,) = results(agent)
    assert text.startswith("error: unknown tool") and "launch_rocket" in text
    for name in mca.TOOLS:
        assert name in text


INVALID = [
    ("run_shell", {}),
    ("run_shell", {"command": ""}),
    ("run_shell", {"command": "  "}),
    ("run_shell", {"command": ["ls"]}),
    ("run_shell", {"command": "ls", "timeout": 0}),
    ("run_shell", {"command": "ls", "timeout": "soon"}),
    ("run_shell", {"command": "ls", "timeout": True}),
    ("run_shell", {"command": "ls", "timeout": 2.5}),
    ("run_shell", {"command": "ls", "sudo": "yes"}),
    ("write_file", {"path": "a.txt"}),
    ("write_file", {"path": None, "content": "x"}),
    ("write_file", {"path": "a.txt", "content": {"x": 1}}),
    ("patch_file", {"path": "calc.py", "old_text": "", "new_text": "x"}),
    ("read_file", {"path": "calc.py", "start": -1}),
    ("delegate", {"task": "x", "max_steps": 0}),
]


@pytest.mark.parametrize(("name", "args"), INVALID)
def test_invalid_arguments_are_answered_with_a_correct_call_and_never_bother_the_human(
    make: Make, name: str, args: dict[str, Any]
) -> None:
    def ask_human(tool: str, preview: str) -> str:
        raise AssertionError("the human was asked")

    text = make(approval_policy="ask", ask_human=ask_human).run_tool(name, args)
    first, example = text.split("\nexample: ")
    assert first.startswith(f"error: invalid arguments for {name}: ")
    match mca.parse(example):
        case mca.Call(shown, shown_args):
            assert shown == name and mca.TOOLS[name].bind(shown_args)
        case other:
            raise AssertionError(f"the example is read as {other!r}")


@pytest.mark.parametrize("path", ["../out.txt", "/tmp/out.txt", ".git/config", "pkg/.GIT/hooks/x"])
def test_a_path_that_must_not_be_written_never_bothers_the_human(
    repo: Path, agent: Agent, path: str
) -> None:
    done = agent([write(path)], stdin="write\ny\n")
    assert "Allow" not in done.err and not (repo.parent / "out.txt").exists()


def test_digits_in_a_string_are_a_number(make: Make) -> None:
    text = make().run_tool("read_file", {"path": "calc.py", "start": "5", "end": "6"})
    assert "   5: def sub" in text and "   1:" not in text


# Approvals through a pipe


ASKED = [
    ("y", True), ("yes", True), ("YES", True), ("a", True), ("always", True), ("n", False),
    ("no", False), ("", False), ("yes please", False), ("ok", False), ("yy", False),
    ("1", False),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "allowed"), ASKED)
def test_only_a_plain_yes_allows_what_is_asked(
    repo: Path, make: Make, answer: str, allowed: bool
) -> None:
    agent = make(write("a.txt"), approval_policy="ask", ask_human=lambda name, preview: answer)
    agent.ask("write")
    assert (repo / "a.txt").exists() == allowed
    assert results(agent)[0].startswith("wrote a.txt" if allowed else "error: approval denied")


def test_in_a_piped_conversation_the_next_line_is_the_answer(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    replies = [write("a.txt"), write("b.txt"), "<final>one of two</final>", "<final>x</final>"]
    done = agent(replies, stdin="write both\ny\nkeep away from b\nsecond request\n")
    assert done.code == 0 and done.err.count("Allow") == 2
    assert "+x" in done.err and "a.txt" in done.err
    assert (repo / "a.txt").exists() and not (repo / "b.txt").exists()
    assert "error: approval denied for write_file" in server.prompts[2]
    assert "keep away from b" in server.prompts[2]
    assert "[user]\nsecond request" in server.prompts[3]


def test_the_end_of_input_is_a_no(repo: Path, agent: Agent) -> None:
    done = agent([write("a.txt")], stdin="write\n")
    assert done.code == 0 and not (repo / "a.txt").exists()


def test_always_allows_a_file_tool_but_only_the_same_command(repo: Path, agent: Agent) -> None:
    one, two = (python(f"open('{name}', 'w')") for name in ("one", "two"))
    replies = [write("a"), write("b"), one, one, two, "<final>x</final>"]
    done = agent(replies, stdin="go\na\nalways\nn\n")
    assert done.err.count("Allow") == 3
    assert [(repo / name).exists() for name in ("a", "b", "one", "two")] == [True] * 3 + [False]


def test_a_one_shot_run_without_a_terminal_denies_at_once_and_names_the_flag(
    repo: Path, server: OllamaServer, agent: Agent
) -> None:
    done = agent([write("a.txt"), "<final>denied</final>"], "write", stdin="y\n")
    assert not (repo / "a.txt").exists() and "Allow?" not in done.err
    assert "approval denied for write_file" in server.prompts[-1]
    assert "--approval" in done.err


@pytest.mark.parametrize("reply", [write("a.txt"), python("open('a.txt', 'w')")])
def test_never_denies_and_auto_runs_and_neither_asks(
    repo: Path, server: OllamaServer, agent: Agent, reply: str
) -> None:
    done = agent([reply, LOOK], "--approval", "never", stdin="go\ny\n")
    assert "approval denied" in server.prompts[1] and "[F] calc.py" in server.prompts[2]
    assert not (repo / "a.txt").exists() and "Allow?" not in done.err
    done = agent([reply, LOOK], "--approval", "auto", stdin="go\n")
    assert (repo / "a.txt").exists() and "Allow?" not in done.err


def test_looking_is_free(agent: Agent) -> None:
    replies = [LOOK, call("read_file", path="calc.py"), call("search", pattern="def")]
    done = agent(replies, stdin="look\n")
    assert done.code == 0 and "Allow?" not in done.err


def test_the_question_spells_out_what_could_fool_a_reader(agent: Agent) -> None:
    done = agent([call("run_shell", command="echo \x1b[2K\u202e; rm x\necho")], stdin="go\nn\n")
    assert "\x1b" not in done.err and "\u202e" not in done.err
    assert "\\x1b[2K" in done.err and "rm x" in done.err


# Approvals at a terminal


def test_at_a_terminal_yes_runs_it_and_a_reason_reaches_the_model(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    server.script([write("a.txt"), write("b.txt"), "<final>all said</final>"])
    with terminal("--cwd", repo, "--host", server.url) as term:
        term.expect("> ")
        term.line("write both")
        assert "+x" in term.expect("Allow?")
        term.line("y")
        term.expect("b.txt")
        term.expect("Allow?")
        term.line("call it c.txt")
        term.expect("all said")
        term.expect("> ")
        term.line("/exit")
        assert term.wait() == 0
    assert (repo / "a.txt").exists() and not (repo / "b.txt").exists()
    assert "call it c.txt" in server.prompts[-1]


@pytest.mark.parametrize(("answer", "allowed"), [("yes", True), ("n", False), ("", False)])
def test_a_one_shot_run_at_a_terminal_asks_too(
    repo: Path, server: OllamaServer, terminal: OpenTerminal, answer: str, allowed: bool
) -> None:
    server.script([write("a.txt"), "<final>all said</final>"])
    with terminal("--cwd", repo, "--host", server.url, "write it") as term:
        term.expect("Allow?")
        term.line(answer)
        term.expect("all said")
        assert term.wait() == 0
    assert (repo / "a.txt").exists() == allowed


def test_an_answer_typed_before_the_question_does_not_count(
    repo: Path, server: OllamaServer, terminal: OpenTerminal
) -> None:
    with terminal("--cwd", repo, "--host", server.url) as term:

        def reply(prompt: str, request: Any) -> str:
            term.line("y")
            term.expect("y\n")
            return write("a.txt")

        server.script([reply, "<final>all said</final>"])
        term.expect("> ")
        term.line("write it")
        term.expect("Allow?")
        term.line("n")
        term.expect("all said")
    assert not (repo / "a.txt").exists()


# Delegation


def child_of(agent: Any) -> list[dict[str, Any]]:
    (event,) = [e for e in agent.session["history"] if e.get("name") == "delegate"]
    child: list[dict[str, Any]] = event["child"]
    return child


def test_a_subagent_looks_something_up_and_only_its_answer_comes_back(
    repo: Path, make: Make
) -> None:
    agent = make(
        call("delegate", task="count the functions of calc.py"),
        call("read_file", path="calc.py"), "<final>two functions</final>", "<final>two</final>",
    )  # fmt: skip
    assert agent.ask("how many functions") == "two"
    assert results(agent) == ["delegate_result:\ntwo functions"]
    assert agent.run.steps == 1
    last = agent.model_client.prompts[-1]
    assert "two functions" in last and "   1: def add" not in last
    first_of_child = agent.model_client.prompts[1]
    assert "count the functions" in first_of_child and "[user]\nhow many" not in first_of_child
    child = child_of(agent)
    assert [event["role"] for event in child] == ["user", "tool", "assistant"]
    assert "   1: def add" in child[1]["content"]
    (file,) = (repo / ".mini-coding-agent" / "sessions").glob("*.json")
    assert json.loads(file.read_text("utf-8"))["history"] == agent.session["history"]


@pytest.mark.parametrize("policy", ["auto", "ask", "never"])
@pytest.mark.parametrize(
    "reply",
    [
        write("a.txt"), python("open('a.txt', 'w')"),
        call("patch_file", path="calc.py", old_text="a + b", new_text="a - b"),
    ],
)  # fmt: skip
def test_a_subagent_is_read_only_in_every_mode_and_asks_nobody(
    repo: Path, make: Make, reply: str, policy: str
) -> None:
    agent = make(
        call("delegate", task="change it"), reply, "<final>I could not</final>",
        approval_policy=policy, ask_human=lambda name, preview: "y",
    )  # fmt: skip
    agent.ask("go")
    assert "approval denied" in child_of(agent)[1]["content"]
    assert not (repo / "a.txt").exists() and "a + b" in (repo / "calc.py").read_text()
    assert "read-only" in child_of(agent)[0]["content"]


def test_a_subagent_has_no_subagent(make: Make) -> None:
    agent = make(call("delegate", task="ask on"), call("delegate", task="ask on"))
    agent.ask("go")
    inner = [event for event in child_of(agent) if event["role"] == "tool"]
    assert inner[0]["content"].startswith("error: ") and "child" not in inner[0]


@pytest.mark.parametrize(
    ("wanted", "parent", "steps"), [({"max_steps": 20}, 2, 2), ({"max_steps": 1}, 6, 1), ({}, 6, 3)]
)
def test_the_steps_of_a_subagent_are_its_own_and_never_more_than_those_of_its_parent(
    make: Make, wanted: dict[str, int], parent: int, steps: int
) -> None:
    looks = [call("search", pattern=f"word{n}") for n in range(steps)]
    agent = make(call("delegate", task="look", **wanted), *looks, LOOK, LOOK, max_steps=parent)
    assert agent.ask("go") == "done"
    child = child_of(agent)
    assert [event["name"] for event in child if event["role"] == "tool"] == ["search"] * steps
    assert f"limit of {steps}" in results(agent)[0]
    assert agent.run.steps == 2  # the delegation, and the LOOK that the child had no step for


def test_a_long_answer_of_a_subagent_is_clipped(make: Make) -> None:
    agent = make(call("delegate", task="talk"), f"<final>start {'x' * 9000} finish</final>")
    agent.ask("go")
    (text,) = results(agent)
    assert len(text) < 4100 and "start" in text and "finish" in text and "left out" in text


# Results


def test_a_long_output_keeps_its_head_and_its_tail(make: Make) -> None:
    agent = make(python("print('first', 'x' * 50000, 'last')"))
    agent.ask("go")
    (text,) = results(agent)
    assert len(text) < 4100 and "first" in text and "last" in text
    assert re.search(r"\[\.\.\. \d+ characters left out \.\.\.\]", text)


READ = call("read_file", path="calc.py")
UNCHANGED = "unchanged since you read it above"


def test_an_unchanged_file_is_not_shown_twice_and_the_first_time_stays(make: Make) -> None:
    agent = make(READ, LOOK, READ)
    agent.ask("look")
    first, _, again = results(agent)
    assert UNCHANGED in again and "calc.py" in again and "\n" not in again
    assert "   1: def add" in first
    assert agent.model_client.prompts[-1].count("   1: def add") == 1


def change(repo: Path, text: str) -> None:
    (repo / "calc.py").write_text(text)


CHANGED = {
    "by the agent": [READ, call("patch_file", path="calc.py", old_text="a + b", new_text="b + a")],
    "by a command": [READ, python("open('calc.py', 'a').write('more')")],
    "another range": [call("read_file", path="calc.py", end=3)],
    "another file": [call("read_file", path="pkg/util.py")],
    "an error before": [call("read_file", path="nothing.py")],
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_file_is_shown_whole_where_that_is_news(make: Make, name: str) -> None:
    agent = make(*CHANGED[name], READ)
    agent.ask("look")
    assert UNCHANGED not in results(agent)[-1] and ": def " in results(agent)[-1]


def test_a_file_that_changed_behind_the_agents_back_is_shown_again(repo: Path, make: Make) -> None:
    agent = make(READ, "<final>read</final>", READ, "<final>read</final>", READ)
    agent.ask("look")
    change(repo, "new = 1\n")
    agent.ask("look again")
    change(repo, "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n")
    agent.ask("look once more")
    assert "new = 1" in results(agent)[1]
    assert UNCHANGED not in results(agent)[2], "the newest version above is another one"


def test_a_file_whose_first_reading_was_folded_away_is_shown_again(repo: Path, make: Make) -> None:
    fill = [call("read_file", path=f"part{n}.txt") for n in range(20)]
    for n in range(20):
        (repo / f"part{n}.txt").write_text(f"part {n} {'x' * 1500}\n")
    agent = make(READ, *fill, READ, max_steps=40, window=mca.Window(6000, 512))
    agent.ask("look")
    assert agent.session["fold"]["at"] > 1
    assert UNCHANGED not in results(agent)[-1] and "   1: def add" in results(agent)[-1]
    assert "   1: def add" in agent.model_client.prompts[-1]


# The loop guard

REPEATED = "error: repeated identical tool call for {}; choose a different tool or return a final"


def test_the_third_identical_call_is_answered_with_what_is_known(make: Make) -> None:
    agent = make(LOOK, call("list_files", path="."), LOOK)
    assert agent.ask("look") == "done"
    first, second, third = results(agent)
    assert first == second and third.startswith(REPEATED.format("list_files"))
    assert "[F] calc.py" in third and agent.run.steps == 2


@pytest.mark.parametrize(
    "reply",
    [READ, call("read_file", path="no.py"), call("search", pattern="zzz"), python("print(1)")],
)
def test_the_guard_knows_readings_failures_and_commands(make: Make, reply: str) -> None:
    agent = make(reply, reply, reply)
    agent.ask("look")
    assert [text.startswith("error: repeated") for text in results(agent)] == [False, False, True]


def test_a_change_or_another_result_lets_a_call_through_again(repo: Path, make: Make) -> None:
    test = python("print(len(open('calc.py').read()))")
    patch = call("patch_file", path="calc.py", old_text="a + b", new_text="a + b + 0")
    agent = make(test, test, patch, test, python("print(2)"), test)
    agent.ask("go")
    assert not [text for text in results(agent) if "repeated" in text]


@pytest.mark.parametrize("between", [write("a.txt"), call("patch_file", path="no", old_text="x")])
def test_a_change_that_did_not_happen_does_not_help(make: Make, between: str) -> None:
    agent = make(LOOK, LOOK, between, LOOK, approval_policy="never")
    agent.ask("go")
    assert "repeated" in results(agent)[-1]


def test_a_new_request_may_repeat_the_calls_of_the_one_before(make: Make) -> None:
    agent = make(LOOK, LOOK, "<final>one</final>", LOOK, "<final>two</final>")
    agent.ask("look")
    assert agent.ask("look again") == "two"
    assert "repeated" not in results(agent)[-1]


def test_a_model_that_repeats_itself_for_ever_is_stopped(make: Make) -> None:
    agent = make(*[LOOK] * 30, max_steps=30)
    answer = agent.ask("look")
    assert "repeats" in answer and "nothing changed" in answer
    assert agent.run.steps == 2 and len(agent.model_client.prompts) < 10


# A tool of one's own

OWN_TOOL = '''
import sys

sys.path.insert(0, {folder!r})
import mini_coding_agent as mca


@mca.tool(risky=True)
def repeat_text(agent, text: str, times: int = 2) -> str:
    """Say a text several times."""
    return " ".join([text] * times)


sys.exit(mca.main())
'''


def test_adding_a_tool_needs_one_function_and_nothing_else(
    tmp_path: Path, repo: Path, run: Run, server: OllamaServer
) -> None:
    program = tmp_path / "own.py"
    program.write_text(OWN_TOOL.format(folder=str(PROGRAM.parent)), "utf-8")
    wrong = [call("repeat_text"), call("repeat_text", text="a", times="many")]
    server.script([*wrong, call("repeat_text", text="ha", times="3"), "<final>ok</final>"])
    flags = ["--cwd", repo, "--host", server.url]
    done = run(*flags, program=program, stdin="laugh\ny\n")
    first, second, third, fourth = server.prompts
    assert "- repeat_text(text, times=2): Say a text several times. [needs approval]" in first
    assert "error: invalid arguments for repeat_text: missing argument 'text'\nexample: " in second
    assert "error: invalid arguments for repeat_text: times must be a whole number" in third
    assert done.err.count("Allow?") == 1 and "repeat_text" in done.err
    assert "[tool:repeat_text]\nha ha ha\n" in fourth
    server.script([call("repeat_text", text="ha")])
    run(*flags, "--approval", "never", "laugh", program=program)
    assert "error: approval denied for repeat_text" in server.prompts[-1]


@pytest.fixture
def own_tool() -> Iterator[None]:
    @mca.tool()
    def stumble(agent: Any, path: str) -> str:
        """Fail in an unexpected way."""
        raise ZeroDivisionError("oops")

    yield
    del mca.TOOLS["stumble"]


@pytest.mark.usefixtures("own_tool")
def test_a_bug_in_a_tool_is_an_error_for_the_model_and_ends_nothing(make: Make) -> None:
    agent = make(call("stumble", path="x"), LOOK)
    assert agent.ask("go") == "done"
    assert results(agent)[0].startswith("error: ") and "oops" in results(agent)[0]
    assert "[F] calc.py" in results(agent)[1]
