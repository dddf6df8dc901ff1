"""The program in scripts: pipes, exit codes, JSON, no keyboard; and the doctor."""

from __future__ import annotations

import ast
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import DONE, Agent, Run, Spawn
from ollama_replies import call, python
from ollama_server import Model, OllamaServer, Reply
from program import PROGRAM

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and descriptors")

JSON_FIELDS = {
    *("answer", "stop", "exit_code", "session", "steps", "files", "commands"),
    *("prompt_tokens", "output_tokens", "reused"),
}


WRITE = call("write_file", path="new.txt", content="one\ntwo\n")


@pytest.fixture
def agent(run: Run, server: OllamaServer, repo: Path) -> Agent:
    """agent(replies, *args, stdin=None) runs the program, a process with real pipes, at `repo`."""

    def agent(replies: Iterable[Any], *args: str, **kwargs: Any) -> Any:
        server.script(replies, then=DONE)
        return run("--cwd", repo, "--host", server.url, *args, **kwargs)

    return agent


def events(repo: Path) -> list[dict[str, Any]]:
    """The events of the one session."""
    (path,) = (repo / ".mini-coding-agent" / "sessions").glob("*.json")
    return list(json.loads(path.read_text("utf-8"))["history"])


def requests(repo: Path) -> list[str]:
    return [event["content"] for event in events(repo) if event["role"] == "user"]


# What goes where

BUSY = [call("list_files"), "<tool>{broken</tool>", WRITE, "<final>\n  the\n\n  answer </final>"]


@pytest.mark.parametrize("form", [["do it"], ["do", "it"], ["-p", "do it"], ["--prompt", "do it"]])
def test_standard_output_carries_the_answer_and_nothing_else(
    agent: Agent, repo: Path, form: list[str]
) -> None:
    done = agent(BUSY, "--approval", "auto", *form)
    assert (done.code, done.out) == (0, "the\n\n  answer\n") and requests(repo) == ["do it"]
    for words in ("list_files", "[notice]", "write_file new.txt: +2 -0", "2 steps"):
        assert words in done.err
    assert "\x1b" not in done.out + done.err and "\r" not in done.out + done.err


def test_the_last_line_of_standard_error_sums_the_request_up(agent: Agent) -> None:
    replies = [WRITE, python("raise SystemExit(3)"), DONE]
    line = agent(replies, "--approval", "auto", "-p", "work").err.splitlines()[-1]
    for wanted in (
        r"^2 steps, \d+\.\d s, ", r"\d+ prompt tokens \(\d\d% reused\)", r"\d+ written \(20\.0/s\)",
        r"changed new\.txt \(\+2 -0\)", r"ran .*python.* \(exit 3\)", "/undo",
    ):  # fmt: skip
        assert re.search(wanted, line), wanted
    assert "stopped" not in line


def test_the_summary_says_why_it_stopped(agent: Agent) -> None:
    done = agent([call("list_files")] * 3, "--max-steps", "1", "-p", "work")
    assert "stopped: steps" in done.err.splitlines()[-1] and "changed" not in done.err


def test_an_answer_may_hold_anything_that_is_text(agent: Agent) -> None:
    text = 'a "quoted" <b>word</b>, tab\there, 日本語 🙂, back\\slash'
    assert agent([f"<final>{text}</final>"], "-p", "x").out == text + "\n"


# Prompt and pipe


def test_with_a_prompt_the_pipe_is_data(agent: Agent, server: OllamaServer, repo: Path) -> None:
    data = "line one\n/exit\n  line two\n"
    done = agent([DONE], "-p", "explain this", stdin=data)
    assert (done.code, done.out, len(server.prompts)) == (0, "done\n", 1)
    assert requests(repo)[0].startswith("explain this\n") and data.rstrip("\n") in requests(repo)[0]
    assert data.rstrip("\n") in server.prompts[0]


def test_with_a_positional_prompt_the_pipe_is_data_too(agent: Agent, repo: Path) -> None:
    agent([DONE], "explain", "this", stdin="the data\n")
    assert requests(repo)[0].startswith("explain this\n") and "the data" in requests(repo)[0]


@pytest.mark.parametrize("stdin", [None, "", "\n"])
def test_an_empty_pipe_adds_nothing(agent: Agent, repo: Path, stdin: str | None) -> None:
    agent([DONE], "-p", "hello", stdin=stdin)
    assert requests(repo) == ["hello"]


def test_a_pipe_may_be_slow_but_a_silent_one_is_left_alone_and_that_is_said(
    spawn: Spawn, server: OllamaServer, repo: Path, tmp_path: Path
) -> None:
    server.script([], then=DONE)
    code = "import time\nfor n in range(4): print('part', n, flush=True); time.sleep(0.6)"
    source = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert source.stdout
    flags = ("--host", server.url, "-p", "sum", "--cwd")
    with source, source.stdout as pipe:
        slow = spawn(*flags, repo, stdin=pipe)
        silent = spawn(*flags, tmp_path, stdin=subprocess.PIPE)  # both at once: each takes seconds
        assert silent.stdout and silent.stderr
        _, err = slow.communicate(timeout=30)
    assert slow.returncode == 0 and "part 3" in requests(repo)[0] and b"silent" not in err
    assert silent.wait(12) == 0 and silent.stdout.read() == b"done\n"
    assert requests(tmp_path) == ["sum"] and b"silent" in silent.stderr.read().lower()


def test_of_a_large_pipe_one_megabyte_is_read_and_the_rest_is_named(run: Run, repo: Path) -> None:
    with OllamaServer([Model("big", context_length=4_000_000)]) as server:
        server.script([DONE])
        data = "first line\n" + "x" * 3_000_000 + "\nlast line\n"
        done = run(
            *("--cwd", repo, "--host", server.url, "--model", "big", "--num-ctx", "3000000"),
            *("-p", "sum up"), stdin=data,
        )  # fmt: skip
        assert (done.code, done.out) == (0, "done\n")
        (request,) = requests(repo)
        assert 900_000 < len(request) < 1_100_000
        assert "first line" in request and "last line" in request
        assert re.search(r"\[\.\.\. \d+ \w+ left out", request)


def test_of_data_larger_than_the_window_the_rest_is_named(agent: Agent, repo: Path) -> None:
    done = agent([DONE], "-p", "sum up", stdin="first\n" + "word " * 40_000 + "\nlast\n")
    (request,) = requests(repo)
    assert done.code == 0 and request.startswith("sum up") and request.rstrip().endswith("last")
    assert len(request) < 25_000 and "characters left out" in request


def test_data_attaches_no_files(agent: Agent, server: OllamaServer, repo: Path) -> None:
    (repo / "private.txt").write_text("the secret word\n")
    agent([DONE], "-p", "explain @calc.py", stdin="see @private.txt\n")
    read = [event["args"]["path"] for event in events(repo) if event["role"] == "tool"]
    assert read == ["calc.py"] and "the secret word" not in server.prompts[0]


def test_without_a_prompt_the_pipe_drives_the_conversation(
    agent: Agent, server: OllamaServer, repo: Path
) -> None:
    lines = ["first", "", "/memory", "  ", "second", "/exit", "never"]
    done = agent(["<final>one</final>", "<final>two</final>"], stdin="\n".join(lines) + "\n")
    assert done.code == 0 and requests(repo) == ["first", "second"]
    assert done.out.startswith("one\n") and done.out.endswith("two\n") and "first" in done.out
    assert "> " not in done.out and "Mini-Coding-Agent" not in done.out
    assert server.prompts[1].count("[user]\nfirst") == 1


CODES = {
    "finished": ([DONE], "one\n", 0),
    "only commands": ([], "/help\n/nonsense\n", 0),
    "nothing": ([], "", 0),
    "no end of line": ([DONE], "one", 0),
    "windows ends": ([DONE], "one\r\n", 0),
    "last failed": ([DONE, Reply("boom", status=500)], "one\ntwo\n", 1),
    "an earlier one failed": ([Reply("boom", status=500), DONE], "one\ntwo\n/help\n", 0),
    "stopped": ([call("list_files")] * 2, "one\n/exit\n", 3),
}


@pytest.mark.parametrize("name", CODES)
def test_a_piped_conversation_ends_with_the_code_of_its_last_request(
    agent: Agent, name: str
) -> None:
    replies, stdin, code = CODES[name]
    done = agent(replies, "--max-steps", "1", stdin=stdin)
    assert done.code == code and "Traceback" not in done.err


# Exit codes

BROKEN = ["<tool>{broken</tool>"] * 9
ENDS = {
    "finished": ([DONE], [], 0, "finished"),
    "fault": ([Reply("boom", status=500)], [], 1, "error"),
    "steps": ([call("list_files")] * 2, ["--max-steps", "1"], 3, "steps"),
    "malformed": (BROKEN, ["--max-steps", "1"], 3, "malformed"),
    "loop": ([call("read_file", path="no")] * 9, ["--max-steps", "20"], 3, "loop"),
    "window": ([], ["--num-ctx", "700"], 3, "window"),
}


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("name", ENDS)
def test_the_exit_code_and_the_json_say_how_it_ended(
    agent: Agent, repo: Path, name: str, output: str
) -> None:
    replies, flags, code, stop = ENDS[name]
    done = agent(replies, *flags, "--output", output, "-p", "work")
    assert done.code == code and "Traceback" not in done.err
    if output == "text":
        assert done.out == "done\n" if code == 0 else bool(done.out) == (code == 3)
        assert (f"stopped: {stop}" in done.err) == (code == 3)
        assert ("prompt tokens" in done.err) == (name != "fault"), "no summary of nothing"
        return
    told = json.loads(done.out)
    assert told.keys() >= JSON_FIELDS and done.out.count("\n") == 1
    assert (told["exit_code"], told["stop"]) == (code, stop) and told["answer"]
    (session,) = (repo / ".mini-coding-agent" / "sessions").glob("*.json")
    assert told["session"] == session.stem


USAGE = {
    "unknown flag": ["--nonsense"],
    "abbreviated flag": ["--max-st", "3", "x"],
    "unknown mode": ["--approval", "maybe", "x"],
    "no number": ["--max-steps", "many", "x"],
    "zero": ["--max-steps", "0", "x"],
    "negative window": ["--num-ctx", "-5", "x"],
    "unknown session": ["--resume", "20200101-000000-abcdef", "x"],
    "no session yet": ["--resume", "latest", "x"],
    "a path as a session": ["--resume", "../x", "x"],
    "missing folder": ["--cwd", "/no/such/folder", "x"],
    "a file as a folder": ["--cwd", "calc.py", "x"],
    "a folder to write to that is not there": ["--allow-write", "/no/such/folder", "x"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_code_2_and_names_what_is_wrong(
    agent: Agent, server: OllamaServer, repo: Path, name: str
) -> None:
    done = agent([], *USAGE[name], cwd=repo)
    assert (done.code, done.out, server.requests) == (2, "", [])
    assert "Traceback" not in done.err and len(done.err.strip()) > 10
    assert not (repo / ".mini-coding-agent").exists()


@pytest.mark.parametrize("value", ["0", "-5", "nan"])
def test_a_wrong_number_is_told_what_it_should_be(agent: Agent, value: str) -> None:
    done = agent([], "--ollama-timeout", value, "x")
    assert done.code == 2 and f"--ollama-timeout: {value} is not above 0" in done.err


@pytest.mark.parametrize("name", [name for name in USAGE if "session" in name or "folder" in name])
def test_a_session_or_folder_that_is_none_is_one_json_object_too(
    agent: Agent, repo: Path, name: str
) -> None:
    done = agent([], "--output", "json", *USAGE[name], cwd=repo)
    told = json.loads(done.out)
    assert (done.code, told["exit_code"]) == (2, 2)
    assert told["answer"] and told["stop"] and told.keys() >= JSON_FIELDS


def test_the_json_names_files_commands_tokens_and_the_share_reused(agent: Agent) -> None:
    replies = [WRITE, python("raise SystemExit(3)"), "<final>done 🙂</final>"]
    done = agent(replies, "--approval", "auto", "--output", "json", "-p", "work")
    told = json.loads(done.out)
    assert told["answer"] == "done 🙂" and told["steps"] == 2
    assert told["files"] == ["new.txt"] and [ran["exit_code"] for ran in told["commands"]] == [3]
    assert "SystemExit" in told["commands"][0]["command"]
    assert told["prompt_tokens"] > 1000 and told["output_tokens"] > 20
    assert 0.5 < told["reused"] < 1


@posix
@pytest.mark.parametrize("output", ["text", "json"])
def test_an_interrupt_is_code_130_and_the_session_is_kept(
    spawn: Spawn, server: OllamaServer, repo: Path, output: str
) -> None:
    server.script([Reply(DONE, hang=60)])
    process = spawn("--cwd", repo, "--host", server.url, "--output", output, "-p", "work")
    server.wait_for(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and b"Traceback" not in err
    assert [event["role"] for event in events(repo)] == ["user", "notice"]
    if output == "json":
        told = json.loads(out)
        assert (told["stop"], told["exit_code"]) == ("interrupted", 130)
    else:
        assert out == b""


# Nobody at the other end


@posix
@pytest.mark.parametrize("request_form", [["-p", "x"], []])
def test_a_reader_who_left_is_no_traceback(
    spawn: Spawn, server: OllamaServer, repo: Path, request_form: list[str]
) -> None:
    server.script([Reply("<final>" + "long " * 20_000 + "</final>", chunk=5000, limited=False)])
    flags = ["--cwd", str(repo), "--host", server.url]
    process = spawn(*flags, *request_form, stdin=subprocess.PIPE)
    assert process.stdout and process.stdin and process.stderr
    process.stdout.close()
    process.stdin.write(b"x\n/help\n/help\n")
    process.stdin.close()
    assert process.wait(20) != 0 and not re.search(b"Traceback|Exception", process.stderr.read())
    assert requests(repo)


@posix
def test_when_both_outputs_have_no_reader_it_ends(
    spawn: Spawn, server: OllamaServer, repo: Path
) -> None:
    server.script([call("list_files")], then=DONE)
    process = spawn("--cwd", repo, "--host", server.url, "-p", "x")
    assert process.stdout and process.stderr
    process.stdout.close()
    process.stderr.close()
    assert process.wait(20) > 0


@posix
@pytest.mark.parametrize("form", [["-p", "x"], []])
def test_without_any_standard_input_it_works_or_ends(
    run: Run, server: OllamaServer, repo: Path, form: list[str]
) -> None:
    server.script([call("write_file", path="new.txt", content="x")], then=DONE)
    shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", sys.executable, str(PROGRAM)]
    done = run("--cwd", repo, "--host", server.url, *form, argv=shell)
    assert done.code == 0 and "Traceback" not in done.err
    assert (done.out == "done\n") == bool(form) and not (repo / "new.txt").exists()


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_without_an_output_it_does_its_work(
    run: Run, server: OllamaServer, repo: Path, closed: str
) -> None:
    server.script([WRITE, DONE])
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(PROGRAM)]
    flags = ["--cwd", str(repo), "--host", server.url, "--approval", "auto", "-p", "x"]
    done = run(*flags, argv=shell)
    assert "Traceback" not in done.err and done.code == 0
    assert (repo / "new.txt").read_text() == "one\ntwo\n"
    assert done.out == ("" if closed == ">&-" else "done\n")


QUESTIONS = {
    "a write": ([WRITE, DONE], ["-p", "x"], None),
    "a command": ([python("open('new.txt','w')"), DONE], ["-p", "x"], None),
    "data in the pipe is no answer": ([WRITE, DONE], ["-p", "x"], "y\ny\ny\n"),
    "the end of a piped conversation": ([WRITE, DONE], [], "x\n"),
    "raising the mode in a pipe": ([WRITE, DONE], [], "/approval auto\n"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_nothing_waits_for_a_keyboard_that_is_not_there(
    agent: Agent, repo: Path, name: str
) -> None:
    replies, form, stdin = QUESTIONS[name]
    done = agent(replies, *form, stdin=stdin)
    assert done.code == 0 and not (repo / "new.txt").exists()
    if form:
        assert "--approval" in done.err


def test_plan_looks_and_touches_nothing_whatever_the_mode(
    agent: Agent, server: OllamaServer, repo: Path
) -> None:
    replies = [
        call("read_file", path="calc.py"), WRITE, python("open('new.txt','w')"),
        "<final>1. add mul</final>",
    ]  # fmt: skip
    done = agent(replies, "--plan", "--approval", "auto", "-p", "add mul")
    assert (done.code, done.out) == (0, "1. add mul\n") and not (repo / "new.txt").exists()
    assert all("plan" in prompt.rpartition("request:")[2] for prompt in server.prompts)
    assert "def add" in server.prompts[1] and "error: " in server.prompts[2]


# Encodings

ODD = "ünïcödé 日本語 🙂 “quoted” → arrow"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8:strict", "latin-1"])
def test_a_console_that_is_not_utf8_does_not_crash(
    agent: Agent, repo: Path, tmp_path: Path, encoding: str
) -> None:
    (repo / "日本.txt").write_text(ODD, encoding="utf-8")
    replies = [
        call("list_files"), call("read_file", path="日本.txt"), "<tool>{ü🙂</tool>",
        call("write_file", path="neu🙂.txt", content=ODD), f"<final>{ODD}</final>",
    ]  # fmt: skip
    env = {"PYTHONIOENCODING": encoding}
    done = agent(replies, "--approval", "auto", "-p", ODD, env=env)
    assert done.code == 0 and "Traceback" not in done.err and requests(repo) == [ODD]
    assert (repo / "neu🙂.txt").read_text(encoding="utf-8") == ODD
    assert "quoted" in done.out and "arrow" in done.out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8:strict"])
@pytest.mark.parametrize("form", [["-p", "x"], []])
def test_bytes_that_are_no_text_in_the_pipe_do_not_crash(
    agent: Agent, server: OllamaServer, form: list[str], encoding: str
) -> None:
    stdin = b"caf\xe9 \xff\xfe \x81 " + ODD.encode() + b"\n"
    done = agent([DONE], *form, stdin=stdin, env={"PYTHONIOENCODING": encoding})
    assert (done.code, done.out) == (0, "done\n") and "Traceback" not in done.err
    assert "caf" in server.prompts[0]


# Ways to start it


def test_it_runs_as_a_module_from_its_folder(run: Run, server: OllamaServer, repo: Path) -> None:
    server.script([DONE])
    argv = [sys.executable, "-m", PROGRAM.stem]
    done = run("--cwd", repo, "--host", server.url, "-p", "x", argv=argv, cwd=PROGRAM.parent)
    assert (done.code, done.out) == (0, "done\n")


@pytest.mark.skipif(not shutil.which("uv"), reason="there is no uv here")
def test_uv_runs_the_file_without_a_project(run: Run, tmp_path: Path) -> None:
    shutil.copy(PROGRAM, tmp_path)
    uv = ["uv", "run", "--offline", "--no-config", "--python", sys.executable, PROGRAM.name]
    done = run("--version", argv=uv)
    assert (done.code, done.out) == (0, f"mini-coding-agent {mca.__version__}\n"), done.err


def test_the_file_says_what_it_needs_to_those_who_run_scripts() -> None:
    source = PROGRAM.read_text("utf-8")
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (block,) = re.finditer(pattern, source)
    lines = [line[2:] for line in block["content"].splitlines()]
    assert block["type"] == "script" and lines == [
        'requires-python = ">=3.10"',
        "dependencies = []",
    ]
    assert source.startswith("#!/usr/bin/env python3\n")
    ast.parse(source, feature_version=(3, 10))


def test_help_names_every_default_and_version_the_version(run: Run) -> None:
    shown = run("--help")
    text = " ".join(shown.out.split())
    assert shown.code == 0 and shown.err == ""
    for action in mca.build_arg_parser()._actions:
        told = action.default not in (None, False, [], "==SUPPRESS==")
        default = f"(default: {action.default})"
        assert (default in text) == told, action.option_strings
    for code in ("0 finished", "1 error", "2 usage", "3 stopped", "130 interrupted"):
        assert code in text
    version = run("--version")
    assert (version.code, version.out) == (0, f"mini-coding-agent {mca.__version__}\n")


def test_the_flag_of_a_model_that_runs_elsewhere_is_no_secret(agent: Agent) -> None:
    done = agent([], "--model", "big:cloud", stdin="/exit\n")
    assert "elsewhere" in done.err


# The doctor

CALL = call("list_files", path=".")


@pytest.fixture
def doctor(run: Run, repo: Path) -> Callable[..., Any]:
    """doctor(server, *flags) runs --doctor; the model always writes the same reply."""

    def doctor(server: OllamaServer, *flags: str, says: Any = CALL) -> Any:
        server.script([], then=says)
        return run("--cwd", repo, "--host", server.url, "--doctor", *flags)

    return doctor


@pytest.mark.parametrize("cache", ["attention", "hybrid"])
def test_the_doctor_is_content_with_a_good_server(
    doctor: Callable[..., Any], repo: Path, cache: Any
) -> None:
    with OllamaServer(cache=cache, version="0.33.7") as server:
        done = doctor(server)
    assert done.code == 0 and "FAIL" not in done.out and "can work" in done.out
    for wanted in ("0.33.7", "qwen3.5:4b", "tools", "16384", r"reads 500 .* 20\.0 tokens/s"):
        assert re.search(wanted, done.out), wanted
    assert not (repo / ".mini-coding-agent").exists()


def test_the_doctor_accepts_a_window_that_is_the_most_a_model_can(
    doctor: Callable[..., Any],
) -> None:
    with OllamaServer([Model("small", context_length=8192)]) as server:
        done = doctor(server, "--model", "small")
    assert done.code == 0 and re.search(r"8192 .*model", done.out)


def test_the_doctor_knows_a_model_whose_tag_is_left_out(doctor: Callable[..., Any]) -> None:
    with OllamaServer(["tiny:latest"]) as server:
        assert doctor(server, "--model", "tiny").code == 0


def test_the_doctor_is_content_with_one_call_in_three(doctor: Callable[..., Any]) -> None:
    count = iter(range(100))
    with OllamaServer() as server:
        done = doctor(server, says=lambda *_: CALL if next(count) == 4 else "I would list them.")
    assert done.code == 0


SICK: dict[str, tuple[Callable[[], OllamaServer], Any, list[str]]] = {
    "model missing": (lambda: OllamaServer(["a:1b", "b:2b"]), CALL, ["ollama pull", "a:1b, b:2b"]),
    "no model at all": (lambda: OllamaServer([]), CALL, ["ollama pull", "none"]),
    "no call": (OllamaServer, "I would list the files.", ["--model"]),
    "unknown tool": (OllamaServer, call("launch_rocket"), ["--model"]),
    "no cache": (lambda: OllamaServer(cache="none"), CALL, ["cache"]),
    "fault": (OllamaServer, Reply("model requires more system memory", status=500), ["--num-ctx"]),
}


@pytest.mark.parametrize("name", SICK)
def test_the_doctor_says_what_is_wrong_and_what_to_do(
    doctor: Callable[..., Any], name: str
) -> None:
    start, says, advice = SICK[name]
    with start() as server:
        done = doctor(server, says=says)
    assert done.code == 1 and "can work" not in done.out and done.out.count("FAIL") == 1
    lines = done.out.splitlines()
    assert len(set(lines)) == len(lines) and "Traceback" not in done.err
    assert lines[-1] == "The agent cannot work here yet."
    for words in advice:
        assert words in done.out


def test_the_doctor_names_a_slow_machine(doctor: Callable[..., Any]) -> None:
    with OllamaServer() as server:
        server.read_ns, server.write_ns = 50_000_000, 900_000_000
        done = doctor(server)
    assert done.code == 1 and re.search(r"FAIL  reads 20 and writes 1\.1", done.out)


def test_the_doctor_without_a_server_says_how_to_start_one(
    run: Run, server: OllamaServer, repo: Path
) -> None:
    server.close()
    done = run("--cwd", repo, "--host", server.url, "--doctor")
    assert done.code == 1 and "ollama serve" in done.out and "Traceback" not in done.err


def test_the_doctor_asks_with_the_options_of_the_loop(
    doctor: Callable[..., Any], agent: Agent, server: OllamaServer
) -> None:
    doctor(server, "--num-ctx", "8192")
    agent([DONE], "--num-ctx", "8192", "-p", "x")
    runner = [{**g.request.options, "num_predict": 0} for g in server.generations]
    assert all(options == runner[0] for options in runner) and server.reloads == 0
