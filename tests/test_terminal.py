"""The terminal: requests, questions and answers, and what a person sees of them."""

import re
import threading
import time
from collections.abc import Callable

import pytest

from conftest import DONE, FILES, write_files
from ollama_replies import call, shell, write
from terminal import Terminal

PROMPT = re.compile(r"(?:^|[\r\n])(?:plan)?> ")
QUESTION = "Allow? [y]es, [a]lways, or a reason why not: "
NEW = FILES["calc.py"].replace("a + b", "b + a")
AUTO = ("--approval", "auto")
Talk = Callable[..., Terminal]


@pytest.fixture
def talk(terminal, server, repo):
    """talk(*replies, args=()) -> the program on a terminal, at its first prompt."""

    def talk(*replies, args=(), **kwargs):
        server.script(replies, then=DONE)
        tty = terminal(*("--cwd", kwargs.pop("at", repo), "--host", server.url, *args), **kwargs)
        tty.expect(PROMPT)
        return tty

    return talk


def say(tty, text):
    """Type a line; what was printed up to the next prompt."""
    tty.line(text)
    return tty.expect(PROMPT)


def answer(tty, keys):
    """Wait for the question and, as a person does, a moment; what stood above the question."""
    shown = tty.expect(QUESTION)
    time.sleep(0.05)  # what is typed earlier than that is dropped
    tty.send(keys)
    return shown


def requests(server):
    """The last request in each prompt."""
    return [prompt.rpartition("The request: ")[2].strip() for prompt in server.prompts]


ANSWERS = {
    "yes": ("Yes\r", True, ""),
    "a reason": ("use \u00e9, not b\r", False, "approval denied for write_file: use \u00e9, not b"),
    "Enter": ("\r", False, "the user says no"), "Ctrl-D": ("\x04", False, None),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_change_is_shown_as_a_diff_and_asked_about(talk, server, repo, name):
    typed, happens, told = ANSWERS[name]
    tty = talk(write("calc.py", NEW))
    tty.line("Change add in calc.py.")
    assert "-    return a + b\n+    return b + a\n" in answer(tty, typed)
    shown = tty.expect(PROMPT).replace("\r", "\n")
    said = "\ndone\n" if told is not None else "Interrupted."
    assert shown.count(said) == 1 and ("changed calc.py (+1 -1)" in shown) == happens
    assert ((repo / "calc.py").read_text() == NEW) == happens and (told or "") in server.prompts[-1]


def test_ctrl_c_ends_the_request_and_not_the_program(talk, server, repo):
    def slow(prompt, request):
        tty.ctrl_c()
        time.sleep(0.5)
        return write("calc.py", NEW)

    tty = talk(write("calc.py", NEW), slow)
    tty.line("Change calc.py.")
    tty.expect(QUESTION)
    tty.ctrl_c()
    tty.expect("Interrupted.")
    tty.expect(PROMPT)
    assert "Interrupted." in say(tty, "Change it after all.")
    tty.send("half a line")
    tty.ctrl_c()
    tty.expect(PROMPT)
    assert "done" in say(tty, "How are you?") and requests(server)[-1].startswith("How are you?")
    tty.send("\x04")
    assert tty.wait() == 0 and (repo / "calc.py").read_text() == FILES["calc.py"]
    assert "Change it after all.\n\nYour answer:\nInterrupted.\n" in server.prompts[-1]


def test_what_was_typed_before_the_question_does_not_answer_it(talk, repo):
    typed = threading.Event()
    tty = talk(lambda *_: (typed.wait(5), write("calc.py", NEW))[1])
    tty.line("Change calc.py.")
    tty.expect("reading since ")
    tty.line("y")
    time.sleep(0.1)
    typed.set()
    answer(tty, "no, thanks\r")
    assert "denied" in tty.expect(PROMPT) and (repo / "calc.py").read_text() == FILES["calc.py"]


COMMANDS = {
    "/help": ["/undo", "pasted", "@path"], "/memory": ["Task: Change calc.py."],
    "/context": [" of 32768 tokens"], "/model": ["qwen3.5:4b"], "/session": ["20"],
    "/undo": ["Took back: Change calc.py.", "calc.py put back"], "/reset": ["new session"],
    "/memory ": ["Task: -"], "/model nope": ["ollama pull nope"], "/nope": ["/help"],
}  # fmt: skip


def test_a_command_says_what_it_did_and_never_reaches_the_model(talk, server):
    tty = talk(write("calc.py", NEW), args=AUTO)
    assert "/undo" in say(tty, "Change calc.py.")
    before = len(server.prompts)
    for command, words in COMMANDS.items():
        shown = say(tty, command).replace(command, "", 1)
        assert all(word in shown for word in words), (command, shown)
    assert len(server.prompts) == before


def test_plan_mode_shows_in_the_prompt_and_ends_as_it_began(talk, repo):
    tty = talk(shell("rm calc.py"), DONE, write("calc.py", NEW), args=AUTO)
    shown = say(tty, "/plan Change calc.py.")
    assert shown.endswith("plan> ") and "denied" in shown and (repo / "calc.py").read_text() != NEW
    assert "plan> " not in say(tty, "/plan off")
    say(tty, "Change calc.py.")
    assert (repo / "calc.py").read_text() == NEW


@pytest.mark.parametrize("word", ["/exit", "/quit", "exit", "quit", ":q", "/bye"])
def test_there_are_words_to_leave_with(agent, server, word):
    assert agent([], stdin=f"{word}\nhello?\n").code == 0 and server.prompts == []


@pytest.mark.parametrize(
    "text", ["def f():\n    return 1\n\n/exit\n/undo it", '"""f."""\ndef f():\n    pass']
)
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_paste_is_one_request_whatever_it_begins_with_or_holds(talk, server, repo, term, text):
    tty = talk(env={"TERM": term})
    tty.paste(text)
    tty.line()
    tty.expect(PROMPT)
    assert {*requests(server)} == {text}


def test_lines_pasted_as_a_reason_are_the_reason(talk, server, repo):
    tty = talk(write("calc.py", NEW))
    tty.line("Change calc.py.")
    answer(tty, "no:\rone\r/exit\r")
    tty.expect(PROMPT)
    assert "no:\none\n/exit" in server.prompts[-1]
    assert server.prompts[-1].count("The request: ") == 1


EVIL = "\x1b]0;evil\x07\x1b[2J\u202eevil\u2066\x9b2J\r\b"


def test_nothing_that_commands_a_terminal_or_fools_a_reader_gets_through(talk, tmp_path):
    where = write_files(tmp_path / "re\x1b]0;po\u202e", FILES | {"bad.txt": f"{EVIL}\nold\n"})
    fails = shell(f"printf '%s\\n' '{EVIL}'; exit 3")
    tty = talk(write("bad.txt", f"{EVIL}\nnew\n"), fails, call("read_file", path=EVIL),
               f"nope {EVIL}", f"<final>{EVIL}</final>", at=where, args=("--model", "qwen3.5:4b"))  # fmt: skip
    tty.line("Change bad.txt and run it.")
    for _ in range(2):
        answer(tty, "y\r")
    tty.expect(PROMPT)
    assert not re.search("\x1b\\]|\x1b\\[2J|[\u202e\u2066\x9b\x07\b]", tty.raw)
    assert r"\x1b]0;evil" in tty.plain and r"\u202e" in tty.plain


@pytest.mark.parametrize(
    ("env", "forbidden"), [({"NO_COLOR": "1"}, "\x1b\\[[0-9;]*m"), ({"TERM": "dumb"}, "\x1b"), ({}, "")]
)  # fmt: skip
def test_colours_and_wrapping_are_for_terminals_that_have_them(talk, env, forbidden):
    long = "<final>" + "word " * 30 + "`python3 -m unittest discover -s tests`</final>"
    fails = shell("echo OneError; exit 1")
    tty = talk(write("calc.py", NEW), fails, *[long] * 3, args=AUTO, env=env)
    shown = say(tty, "Change calc.py.")
    assert not forbidden or not re.search(forbidden, tty.raw)
    assert forbidden or "\x1b[31m    OneError\x1b[0m" in tty.raw
    is_live = env != {"TERM": "dumb"}  # without colours it streams, too
    assert (is_live, is_live) == ("word\n" in shown, "writing" in tty.plain)
    assert "`python3 -m unittest discover" in shown


def test_a_missing_server_is_said_before_the_first_request(terminal, repo):
    tty = terminal("--cwd", repo, "--host", "127.0.0.1:9")
    shown = " ".join(tty.expect(PROMPT).split())
    assert "`ollama serve`" in shown and "Mini-Coding-Agent" in shown
    assert "`ollama serve`" in say(tty, "hello?")


SUMMARIES = {
    "a change and a command": (
        [write("calc.py", NEW), shell("true")], "Change calc.py.",
        ["changed calc.py (+1 -1)", "ran true: exit code 0", "tokens in"], ["not checked", "/undo"],
    ),
    "a change that nothing judged": ([write("new.txt")], "Add new.txt.", ["not checked"], ["nothing"]),
    "a change and back": ([write("calc.py", NEW), write("calc.py", FILES["calc.py"])], "Change it.", ["nothing changed", "NOT DONE"], ["changed calc.py"]),
    "nothing": ([], "What is in calc.py?", ["nothing changed"], ["NOT DONE", "/undo"]),
    "a contradiction": ([], "Change calc.py.", ["nothing changed", "NOT DONE"], ["/undo"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMARIES)
def test_standard_output_is_the_answer_alone_and_the_summary_is_the_record(agent, name):
    replies, request, told, untold = SUMMARIES[name]
    done = agent(replies, *AUTO, "-p", request)
    last = " ".join(done.err.rpartition("0 s · ")[2].split())
    assert done.out == "done\n" and done.code == (3 if "NOT DONE" in told else 0)
    assert all(words in last for words in told) and not any(words in last for words in untold), last


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_shows_its_last_lines(agent, code):
    err = agent([shell(f"seq 50; exit {code}")], *AUTO, "What does seq say?").err
    assert re.search(r"(?m)^ +49\n +50$", err) and not re.search(r"\b30\b", err)


def test_what_is_piped_in_beside_a_request_is_data_and_what_is_left_out_is_said(agent, server):
    done = agent([], "What is wrong here?", stdin="Traceback: boom\n/exit\n")
    assert (done.code, done.out) == (0, "done\n") and "in the pipe" not in done.err
    assert "wrong here?" in server.prompts[0] and "Traceback: boom\n/exit" in server.prompts[0]
    done = agent([], "What is this?", stdin="y" * 500_000)
    assert "500000 characters" in done.err and "left out" in server.prompts[-1]
