"""The loop: doubts, the program's own check, slips, what the model is told and sent."""

import pytest

import mini_coding_agent as mca
from conftest import DONE, FILES, commands, events, tail, write_files
from ollama_replies import Reply, shell, write

CALC = FILES["calc.py"]
NEW = write("calc.py", CALC.replace("a + b", "b + a"))
BAD = write("calc.py", CALC.replace("a + b", "a - b - 0"))  # as long as NEW, old bytecode is run
LOOK = '<tool name="search">add</tool>'
SLIP = '<tool name="launch_rocket">MARKER</tool>'
TESTS = {"test_calc.py": "import unittest\n\nfrom calc import add\n\n\nclass T(unittest.TestCase):\n"
         "    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n"}  # fmt: skip
IT_IS = "<final>It is so.</final>"

DOUBTED = [
    ("Fix add in calc.py.", [DONE, NEW], "Nothing was changed yet"),
    ("Fix add in calc.py.", ["It is fixed.", NEW], "Nothing was changed yet"),
    ("Fix add in calc.py.", [write("calc.py", CALC), NEW], "Nothing was changed yet"),
    ("Fix add.", ['<tool name="read_file">no.py</tool>', DONE, NEW], "last call failed"),
    ("Fix add.", [shell("grep 'b + a' *.py"), DONE, NEW], "last call failed"),
    ("What is calc.py?", ["<final>your answer to the user</final>", IT_IS], "one of the forms"),
    ("Run it and tell me.", ["It prints 3.", shell("true")], "Nothing was run yet"),
    ("Fix add.", [mca.NOTHING, NEW], "only repeats"),
    ("Fix add.", ['<tool_call>{"name": "run_shell"}</tool_call>', NEW], "there is no tool"),
]


@pytest.mark.parametrize("request_, replies, words", DOUBTED)
def test_an_answer_that_the_record_contradicts_is_doubted(do, server, request_, replies, words):
    done = do(request_, *replies, *[IT_IS][: replies[-1] != IT_IS])
    *_, doubt = (tail(prompt) for prompt in server.prompts[: len(replies)])
    assert words in doubt and "If the request is fulfilled" not in doubt
    assert len(server.prompts) == len(replies) + (replies[-1] != IT_IS)
    assert (done.code, done.out) == (0, "It is so.\n") and "NOT DONE" not in done.err


def test_after_two_doubts_the_answer_stands_and_the_program_says_that_it_is_not_done(do, server):
    done = do("Fix add in calc.py.", "<final>All fixed.</final>")
    assert len(server.prompts) == 3
    assert done.code == 3 and done.out == "done\n"
    assert "nothing changed" in done.err and "NOT DONE" in done.err


def test_a_failure_to_the_end_is_said_together_with_what_was_changed(do, server):
    done = do("Fix add in calc.py.", NEW, shell("exit 3"))
    assert done.code == 3 and len(server.prompts) == 5 and "/undo" not in done.err
    for words in ("changed calc.py (+1 -1)", "ran exit 3: exit code 3", "NOT DONE: run_shell"):
        assert words in done.err
    assert "If the request is fulfilled" not in tail(server.prompts[2])


@pytest.mark.parametrize("request_, replies", [
    ("What does calc.py do?", ["It adds."]), ("Explain add.", ["It adds."]),
    ("Do the tests pass?", [shell("exit 1"), "<final>It adds.</final>"]),
    ("Hello there", ["It adds."]),
    ("Run the tests and tell me.", [shell("exit 1"), "<final>It adds.</final>"]),
    ("Is there a b.py?", ['<tool name="read_file">b.py</tool>', "<final>It adds.</final>"]),
])  # fmt: skip
def test_plain_text_is_an_answer_where_nothing_is_in_doubt(do, server, request_, replies):
    done = do(request_, *replies)
    assert (done.code, done.out) == (0, "It adds.\n") and len(server.prompts) == len(replies)
    assert "nothing changed" in done.err


@pytest.mark.parametrize("wants, requests", [
    (True, "Can you fix it?|Why -1? Fix it.|Find the bug and fix it.|The tests fail.|If it is missing, "
     "create it.|Could we add a flag?|Can you quickly fix it?|Implement mul.|git should ignore dist.|In a.py add x|That is intended: change it|It needs a test|Add what is missing."),
    (False, "List the functions that set it|Run make test|Is it safe to remove add?|Should I use tabs?|"
     "Can you explain how to add and set it?|Run the tests and tell me the result|Show me where we set x"),
    (None, "Do it.|Find where we create the socket|Review this\n\nStandard input:\nAdd a file."),
])  # fmt: skip
def test_an_order_is_told_from_a_question(make, wants, requests):
    for request in requests.split("|"):
        assert mca.Turn(make(), request).wants_change() is wants, request


@pytest.mark.parametrize("request_, flags", [
    ("What does add do?", ()), ("Let add take three.", ["--plan"]), ("Review it.", ["--approval", "never"]),
])  # fmt: skip
def test_a_listing_in_the_answer_to_a_question_is_an_illustration(agent, repo, request_, flags):
    done = agent([f"It adds:\n\n{NEW}\n"], "--approval", "auto", *flags, request_)
    assert done.code == 0 and done.out.startswith("It adds:") and "b + a" in done.out
    assert "b + a" not in (repo / "calc.py").read_text() and "nothing changed" in done.err


MAKE = ".PHONY: test\ntest:\n\t@"
UNITTEST, FIX = "python3 -m unittest", "Fix add in calc.py."


@pytest.mark.parametrize("files, request_, replies, command", [
    (TESTS, FIX, [NEW], UNITTEST), ({"Makefile": f"{MAKE}true\n"}, FIX, [NEW], "make test"),
    (TESTS, "`python3 calc.py '1 + 1'` must print nothing.", [NEW], "python3 calc.py '1 + 1'"),
    (TESTS, "python3 calc.py 1+1 must print nothing.", [NEW], UNITTEST),
    (TESTS, "Please make test cases for add.", [NEW], UNITTEST),
    (TESTS, FIX, [NEW, shell(UNITTEST)], UNITTEST), ({"Makefile": "test:\n\t@true\n"}, FIX, [NEW], "make test"),
])  # fmt: skip
def test_a_change_is_checked(do, server, repo, files, request_, replies, command):
    write_files(repo, files)
    done = do(request_, *replies, IT_IS)
    assert (done.code, done.out) == (0, "It is so.\n"), done.err
    assert len(server.prompts) == len(replies) + 1
    assert commands(repo) == [command]
    outcome = "exit code 0" if replies[-1] == shell(UNITTEST) else "passes"
    assert f"ran {command}: {outcome}" in done.err and "not checked" not in done.err


def test_a_check_that_fails_is_shown_to_the_model_and_the_work_goes_on(do, server, repo):
    write_files(repo, TESTS)
    done = do("Turn add in calc.py around.", BAD, DONE, NEW, IT_IS)
    assert "FAIL: test_add" in server.prompts[2]
    assert (done.code, done.out) == (0, "It is so.\n") and len(server.prompts) == 4
    assert commands(repo) == [UNITTEST] * 2


def test_what_is_said_to_fail_is_run_before_the_model_is_asked(do, server, repo):
    write_files(repo, TESTS | {"calc.py": CALC.replace("a + b", "a - b - 0")})
    done = do("The tests fail. Find the bug.", NEW, IT_IS)
    assert "FAIL: test_add" in server.prompts[0].partition("The request:")[0]
    assert done.code == 0 and commands(repo) == [UNITTEST] * 2 and len(server.prompts) == 2


def test_a_check_that_goes_on_failing_is_never_called_done(do, repo):
    write_files(repo, {"Makefile": f"{MAKE}echo approval denied; false\n"})
    replies = [step for n in range(4) for step in (write("calc.py", f"{CALC}# {n}\n"), DONE)]
    done = do(FIX, *replies, DONE, flags=("--max-steps", "20"))
    assert commands(repo) == ["make test"] * 4 and done.code == 3
    assert "ran make test: fails" in done.err and "NOT DONE" in done.err


def test_a_check_that_the_human_declines_leaves_the_answer_as_it_is(agent, server, repo):
    write_files(repo, TESTS)
    again = [write("new.py"), IT_IS, write("x.py"), IT_IS]
    typed = "Fix add in calc.py.\ny\nn\nAdd new.py.\ny\n/reset\nAdd x.py.\ny\nn\n"
    done = agent([NEW, IT_IS, *again], stdin=typed)
    assert done.code == 0 and done.out.count("It is so.") == 3 and len(server.prompts) == 6
    assert done.err.count("To judge the work") == 2, "once in each session"
    assert UNITTEST in done.err and "not checked" in done.err
    assert "b + a" in (repo / "calc.py").read_text() and "denied" not in str(events(repo))


def test_after_a_slip_the_model_is_asked_again_and_is_not_shown_it_again(do, server):
    do("What is add?", SLIP, LOOK, LOOK, DONE)
    assert not any("MARKER" in prompt for prompt in server.prompts)
    assert ["launch_rocket" in prompt for prompt in server.prompts] == [False, True, False, False]


@pytest.mark.parametrize("name", ["unreadable", "repeated", "mixed"])
def test_three_slips_in_a_row_end_the_request(do, server, name):
    replies = {"unreadable": [LOOK, SLIP, SLIP, SLIP], "repeated": [LOOK] * 4,
               "mixed": [LOOK, SLIP, LOOK, SLIP]}[name]  # fmt: skip
    done = do("What is add?", *replies)
    assert len(server.prompts) == 4 and done.code == 3
    assert "larger model" in done.err and done.out == "" and "nothing changed" in done.err


def test_a_good_step_between_slips_forgives_them(do):
    steps = [f'<tool name="search">add{n}</tool>' for n in range(4)]
    replies = [reply for step in steps for reply in (SLIP, SLIP, step)]
    done = do("What is add?", *replies, flags=("--max-steps", "9"))
    assert done.code == 0 and done.err.count("[to the model]") == 8


def test_a_repeated_call_is_not_run_and_the_model_is_told(do, server, repo):
    do("What is add?", LOOK, LOOK)
    assert len(events(repo)) == 1 and "already" in tail(server.prompts[2])
    do("Fix add.", LOOK, LOOK, NEW)
    assert "Nothing was changed yet" in tail(server.prompts[-2])


def test_a_command_after_a_change_is_no_repetition_and_a_change_after_it_is_not_checked(do, repo):
    done = do("Fix calc.py.", shell("true"), NEW, shell("true"), BAD)
    assert done.code == 0 and commands(repo) == ["true", "true"]
    assert "changed calc.py (in 2 steps)" in done.err and "not checked" in done.err


def test_a_reply_that_was_cut_is_told_so_and_gets_twice_the_room(do, server, repo):
    write_files(repo, {"big.txt": "some words\n" * 400})
    do("Fix calc.py by big.txt.", Reply("calc.py\n```\ndef", done_reason="length"), NEW)
    room = [g.request.options["num_predict"] for g in server.generations]
    assert 512 + 4_400 / 5 < room[0] < 512 + 4_400, "it holds the largest file in view"
    assert room[1] == pytest.approx(2 * room[0], rel=0.3) and room[2] < 1.3 * room[0]
    assert "cut off" in tail(server.prompts[1]) and "b + a" in (repo / "calc.py").read_text()


def test_the_calls_of_a_reply_are_run_up_to_the_first_that_fails(do, repo):
    do("Fix calc.py.", f"{NEW}\n{write('../x.txt')}\n{shell('touch ran')}")
    assert [event["ok"] for event in events(repo)] == [True, False]
    assert not (repo / "ran").exists()


def test_the_steps_of_a_request_have_a_limit(do, server, repo):
    writes = [write(f"{name}.txt") for name in ("one", "two", "three")]
    done = do("Create files.", *writes, flags=("--max-steps", "2"))
    assert len(server.prompts) == 3 and done.code == 3 and "--max-steps" in done.err
    assert do("Create new.txt.", write("new.txt", "1\n"), flags=("--max-steps", "1")).code == 0
    assert (repo / "two.txt").exists() and not (repo / "three.txt").exists()


def test_the_request_stands_last_and_nothing_follows_it_at_the_first_step(do, server):
    do("What is in calc.py, in short?", LOOK)
    assert server.prompts[0].endswith("What is in calc.py, in short?\n")
    assert "<final>" not in server.prompts[0] and "<final>" in tail(server.prompts[1])


@pytest.mark.parametrize("words", ["pkg/util.py", "util.py", "@pkg/util.py", "./pkg/util.py"])
def test_a_file_that_the_request_names_is_attached(do, server, repo, words):
    write_files(repo, {"large.txt": "x\n" * 4000, "a b.txt": "with a blank\n"})
    do(f'What is {words}, and what is @"a b.txt"?')
    listing = f"pkg/util.py\n```\n{FILES['pkg/util.py']}```\n"
    assert listing in server.prompts[0] and "a b.txt\n```\nwith a blank\n" in server.prompts[0]
    assert "calc.py\n```" not in server.prompts[0].partition("What is")[0][2000:]


def test_of_a_long_file_only_what_the_request_names_is_shown_and_changed(do, server, repo):
    steps = "".join(f"def step_{n}(x):\n    return x + {n}\n\n\n" for n in range(99))
    write_files(repo, {"steps.py": steps})
    new = "def step_7(x):\n    return x - 7\n"
    done = do("step_7 should take away.", write("steps.py", new), IT_IS)
    assert "steps.py\n```\ndef step_7(x):\n    return x + 7\n```\n[what" in server.prompts[0]
    assert (repo / "steps.py").read_text() == steps.replace("x + 7\n", "x - 7\n")
    assert "changed steps.py (+1 -1)" in done.err


def test_a_small_workspace_is_attached_whole_and_no_file_twice(agent, server, repo):
    def change(prompt, _):
        texts = [f"{name}\n```\n{text}```\n" for name, text in FILES.items() if text]
        assert [prompt.count(text) for text in texts] == [1] * 5
        (repo / "calc.py").write_text("ANOTHER = 1\n")
        return "It adds."

    agent(["It adds.", change], stdin="What is here?\nAnd in calc.py?\nAnd now?\n")
    assert server.prompts[-1].count(CALC) == 1
    assert server.prompts[-1].count("calc.py\n```\nANOTHER = 1\n```") == 1


def test_every_model_call_has_the_options_that_the_server_needs(do, server):
    do("What is add?", SLIP, LOOK, '<tool name="delegate">look</tool>', "<final>x</final>",
       flags=("--num-ctx", "9000", "--top-p", "0.5"))  # fmt: skip
    assert len(server.generations) == 5 and server.reloads == 0
    for generation in server.generations:
        body, options = generation.request.body, generation.request.options
        assert (body["truncate"], body["think"], body["stream"]) == (False, False, True)
        assert {"</tool>", "</final>"} < {*options["stop"]}
        wanted = {"num_ctx": 9000, "num_batch": 96, "presence_penalty": 0, "top_p": 0.5}
        assert {name: options[name] for name in wanted} == wanted
