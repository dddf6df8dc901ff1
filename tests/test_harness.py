"""Tests of the test infrastructure itself: the server's semantics, the terminal, the fixtures."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conftest import Git, OpenTerminal, Run, Spawn
from ollama_engine import ApiError, go_json
from ollama_server import Json, Model, OllamaServer, Reply, Request
from program import MARK, kill_marked
from vt_screen import Screen

MODEL = "qwen3.5:4b"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def post(server: OllamaServer, prompt: str = "", path: str = "/api/generate", **body: Any) -> bytes:
    data = json.dumps({"model": MODEL, "prompt": prompt, **body}).encode()
    with DIRECT.open(urllib.request.Request(server.url + path, data), timeout=10) as response:
        read: bytes = response.read()
        return read


def lines(server: OllamaServer, prompt: str = "hi", **body: Any) -> list[Json]:
    return [json.loads(line) for line in post(server, prompt, **body).splitlines()]


def get(server: OllamaServer, path: str) -> Any:
    with DIRECT.open(server.url + path, timeout=10) as response:
        return json.loads(response.read())


def refusal(server: OllamaServer, prompt: str = "hi", **body: Any) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, prompt, **body)
    with caught.value as error:
        return error.code, str(json.loads(error.read())["error"])


def text_of(parts: list[Json]) -> str:
    return "".join(part.get("response", "") for part in parts)


# The protocol


def test_a_stream_is_one_object_per_line_and_ends_with_the_metrics(server: OllamaServer) -> None:
    server.script([Reply("<final>héllo & bye</final>", chunk=[1, 5])])
    parts = lines(server, "hi", options={"num_ctx": 2048})
    assert text_of(parts) == "<final>héllo & bye</final>"
    assert [len(part["response"]) for part in parts[:4]] == [1, 5, 1, 5]
    last = parts[-1]
    assert (last["done"], last["done_reason"], last["response"]) == (True, "stop", "")
    assert last["prompt_eval_count"] == server.prompt_tokens("hi") == 13
    assert last["eval_count"] > 0 and len(last["context"]) == 13 + last["eval_count"]
    assert {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"} <= {*last}
    assert server.prompts == ["hi"] and server.sent_chars == [26]
    assert server.requests[0].options == {"num_ctx": 2048}


def test_without_stream_the_reply_is_one_object(server: OllamaServer) -> None:
    server.script([Reply("text", thinking="hm")])
    (whole,) = lines(server, stream=False)
    assert (whole["response"], whole["thinking"], whole["done"]) == ("text", "hm", True)


def test_json_is_escaped_as_go_does() -> None:
    assert go_json({"a": "<é&>"}) == '{"a":"\\u003cé\\u0026\\u003e"}'.encode()


def test_the_other_endpoints_answer_as_ollama_does() -> None:
    with OllamaServer([MODEL, Model("tiny", 2048)], loaded={MODEL: 8192}) as server:
        assert get(server, "/api/version") == {"version": "0.33.0"}
        tags = get(server, "/api/tags")["models"]
        assert [tag["details"]["context_length"] for tag in tags] == [262144, 2048]
        (loaded,) = get(server, "/api/ps")["models"]
        assert (loaded["name"], loaded["context_length"]) == (MODEL, 8192)
        show = json.loads(post(server, path="/api/show"))
        assert show["model_info"]["qwen35.context_length"] == 262144
        assert "PARSER qwen3.5" in show["modelfile"] and "tools" in show["capabilities"]
        with DIRECT.open(server.url) as response:
            assert response.read() == b"Ollama is running"
        with DIRECT.open(urllib.request.Request(server.url, method="HEAD")) as response:
            assert (response.status, response.read()) == (200, b"")


WRONG = [
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"options": {"num_ctx": "8"}}, 500, 'option "num_ctx" must be of type integer'),
    ({"options": {"num_ctx": True}}, 500, 'option "num_ctx" must be of type integer'),
    ({"options": {"top_p": "x"}}, 500, 'option "top_p" must be of type float32'),
    ({"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
    ({"raw": True, "system": "x"}, 400, "raw mode does not support template, system, or context"),
]


@pytest.mark.parametrize(("body", "status", "text"), WRONG)
def test_a_wrong_request_is_refused_in_ollamas_words(
    server: OllamaServer, body: Json, status: int, text: str
) -> None:
    assert refusal(server, **body) == (status, text)
    assert server.prompts == [] and server.refused[0][1] == text


def test_an_empty_prompt_loads_and_keep_alive_zero_unloads(server: OllamaServer) -> None:
    assert lines(server, "")[0]["done_reason"] == "load"
    assert get(server, "/api/ps")["models"][0]["context_length"] == 4096
    assert lines(server, "", keep_alive=0)[0]["done_reason"] == "unload"
    assert get(server, "/api/ps")["models"] == [] and server.prompts == []


# The window and the cache


def test_an_overlong_prompt_is_refused_with_nested_json(server: OllamaServer) -> None:
    long = "x" * 36_000
    status, text = refusal(server, long, truncate=False, options={"num_ctx": 4096})
    nested = json.loads(text)["error"]
    assert (status, nested["type"]) == (400, "exceed_context_size_error")
    assert (nested["n_prompt_tokens"], nested["n_ctx"]) == (10_012, 4096)
    assert lines(server, long, options={"num_ctx": 4096})[-1]["prompt_eval_count"] == 2050
    assert server.generations[0].truncated and server.reloads == 0


def test_an_old_server_cuts_whatever_truncate_says() -> None:
    with OllamaServer(honours_truncate=False, default_ctx=100) as server:
        assert lines(server, "x" * 999, truncate=False)[-1]["prompt_eval_count"] == 52


def test_changed_runner_options_reload_and_sampling_options_do_not(server: OllamaServer) -> None:
    for options in ({"num_ctx": 4096}, {"num_ctx": 4096, "top_p": 0.5}, {"num_ctx": 8192}):
        lines(server, options=options)
    assert (server.loads, server.reloads) == (2, 1)
    assert [made.loaded_now for made in server.generations] == [True, False, True]


def costs(cache: Any, prompts: list[str], **body: Any) -> list[int]:
    """The tokens that are processed anew, with a counter of one token per character."""
    with OllamaServer(cache=cache, counter=len, default_ctx=20_000) as server:
        server.script([], then="out")
        for prompt in prompts:
            lines(server, prompt, options={"num_batch": 256}, **body)
        return [made.processed for made in server.generations]


def test_an_attention_model_reprocesses_from_the_first_difference() -> None:
    a = "a" * 3000
    assert costs("attention", [a, a + "b" * 100, "c"]) == [3012, 109, 10]


def test_a_hybrid_model_resumes_num_batch_before_the_previous_end() -> None:
    a = "a" * 3000
    assert costs("hybrid", [a, a + "b" * 100]) == [3012, 256 + 100]
    assert costs("hybrid", [a + "t" * 247, a + "b" * 100]) == [3259, 256 + 100 - 247]
    assert costs("hybrid", [a + "t" * 300, a + "b" * 100]) == [3312, 3112]
    assert costs("hybrid", [a, a]) == [3012, 4]


def test_a_raw_prompt_that_continues_its_output_costs_only_what_is_new() -> None:
    a = "a" * 3000
    assert costs("hybrid", [a, a + "out" + "b"], raw=True) == [3000, 1]


def test_num_predict_and_stop_cut_the_text() -> None:
    with OllamaServer(counter=len) as server:
        server.script(["abcdef", Reply("abcdef", limited=False), "ab<stop>cd"])
        options = {"num_predict": 4, "stop": ["<stop>"]}
        cut, whole, stopped = (lines(server, options=options) for _ in range(3))
    assert (text_of(cut), cut[-1]["done_reason"], cut[-1]["eval_count"]) == ("abcd", "length", 4)
    assert (text_of(whole), whole[-1]["done_reason"]) == ("abcdef", "stop")
    assert text_of(stopped) == "ab"


# The script


def test_callables_see_the_request_and_the_end_of_the_script_is_counted(
    server: OllamaServer,
) -> None:
    def answer(prompt: str, request: Request) -> str:
        return f"{prompt} to {request.body['model']}"

    server.script([answer])
    assert text_of(lines(server, "hi")) == f"hi to {MODEL}"
    assert text_of(lines(server)) == "<final>script exhausted</final>"
    assert server.exhausted == 1


def test_an_error_in_a_callable_fails_the_test() -> None:
    def broken(prompt: str, request: Request) -> str:
        raise KeyError("oops")

    with pytest.raises(KeyError), OllamaServer() as server:
        server.script([broken])
        assert refusal(server)[0] == 500


def test_faults_inside_a_stream(server: OllamaServer) -> None:
    server.script([
        Reply("some", no_done=True),
        Reply("some", error_line="unexpected EOF"),
        Reply("some", garbage_line="<html>"),
        Reply("", tool_calls=[{"function": {"name": "ls", "arguments": {}}}], eval_count=30),
    ])  # fmt: skip
    assert [part["done"] for part in lines(server)] == [False]
    assert lines(server)[-1] == {"error": "unexpected EOF"}
    assert b"\n<html>\n" in post(server, "hi")
    last = lines(server)[-1]
    assert (last["eval_count"], last["tool_calls"][0]["function"]["name"]) == (30, "ls")


def test_plain_responses(server: OllamaServer) -> None:
    server.script([
        Reply("busy", status=503),
        Reply(status=401, body={"error": "unauthorized", "signin_url": "x"}),
        Reply(body="<html>"),
        Reply(body=""),
        Reply(body="{}", content_length=99),
        Reply("some", content_length=9999),
        Reply(redirect="http://127.0.0.1:9/", status=307),
    ])  # fmt: skip
    assert refusal(server) == (503, "busy")
    assert refusal(server) == (401, "unauthorized")
    assert post(server, "hi") == b"<html>"
    assert post(server, "hi") == b""
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead):
            post(server, "hi")
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server, "hi")
    with caught.value as error:
        assert (error.code, error.headers["Location"]) == (307, "http://127.0.0.1:9/")


def test_a_fault_may_be_set_for_a_path(server: OllamaServer) -> None:
    server.faults["/api/tags"] = Reply("no", status=500)
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server, "/api/tags")
    caught.value.close()
    assert caught.value.code == 500


def test_connections_are_dropped_after_the_given_characters(server: OllamaServer) -> None:
    drops: list[tuple[Any, type[Exception]]] = [
        ("reset", ConnectionResetError),
        ("close", http.client.IncompleteRead),
    ]
    server.script([Reply("0123456789", drop_after=6, drop=drop) for drop, _ in drops])
    for _, error in drops:
        with pytest.raises(error):
            post(server, "hi")
    assert server.sent_chars == [6, 6] and server.cancelled == 0


def test_the_native_parser_swallows_calls_as_qwens_does() -> None:
    call = "<tool_call>\n<function=ls>\n</function>\n</tool_call>"
    with OllamaServer(parser=True) as server:
        server.script([f"well \n{call}", "so <tool_call> open", '<tool_call>{"a":1}</tool_call>'])
        assert text_of(lines(server)) == "well"
        assert text_of(lines(server)) == "so"
        assert refusal(server) == (500, "EOF")


# Cancellation and closing


def open_generation(server: OllamaServer) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port))
    body = json.dumps({"model": MODEL, "prompt": "hi"}).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize(
    ("reply", "sent"),
    [(Reply("x" * 100, hang=60), 0), (Reply("x" * 100, hang=60, hang_after=10), 10)],
)
def test_a_client_that_leaves_is_noticed_at_once(
    server: OllamaServer, reply: Reply, sent: int
) -> None:
    server.script([reply])
    with open_generation(server):
        server.wait_for(1)
        while server.sent_chars != [sent]:
            time.sleep(0.001)
    server.wait_for(cancelled=1)
    assert server.sent_chars == [sent]


def test_closing_does_not_wait_for_hanging_clients(capfd: pytest.CaptureFixture[str]) -> None:
    with OllamaServer() as server:
        server.script([], then=Reply(hang=60))
        with contextlib.ExitStack() as clients:
            for _ in range(5):
                clients.enter_context(open_generation(server))
            server.wait_for(5)
            server.close()
            server.wait_for(ended=5)
    assert server.cancelled == 0 and capfd.readouterr() == ("", "")


def test_waiting_in_vain_says_what_there_is(server: OllamaServer) -> None:
    with pytest.raises(AssertionError, match="passed"):
        server.wait_for(1, timeout=0.01)


def test_requests_may_come_in_parallel(server: OllamaServer) -> None:
    server.script([], then="x" * 200)
    threads = [threading.Thread(target=lines, args=(server,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.sent_chars == [200] * 8 and server.loads == 1


def test_an_unknown_model_may_be_found_by_its_latest_tag() -> None:
    with OllamaServer(["tiny:latest"]) as server:
        assert server.find("tiny").name == "tiny:latest"
        with pytest.raises(ApiError):
            server.find("huge")


# The terminal

REPL = """
import os, shutil, sys
print("\\x1b[1mready\\x1b[0m", os.isatty(0), shutil.get_terminal_size().columns)
print("working 1", end="\\r"); print("\\x1b[2Kdone", flush=True)
while True:
    try:
        text = input("> ")
    except KeyboardInterrupt:
        print("interrupted"); continue
    except EOFError:
        print("bye"); sys.exit(3)
    print("echo", text, shutil.get_terminal_size().columns)
"""


@pytest.fixture
def repl(tmp_path: Path) -> Path:
    path = tmp_path / "repl.py"
    path.write_text(REPL, encoding="utf-8")
    return path


def test_a_conversation_on_a_terminal(terminal: OpenTerminal, repl: Path) -> None:
    with terminal(program=repl, cols=60) as tty:
        assert tty.expect("> ") == "ready True 60\nworking 1\rdone\n> "
        assert "\x1b[1m" in tty.raw
        tty.line("héllo 世界")
        assert "echo héllo 世界 60" in tty.expect(re.compile(r"echo.* \d+\n"))
        tty.expect("> ")
        tty.ctrl_c()
        tty.expect("interrupted")
        tty.resize(10, 100)
        tty.line("wide")
        tty.expect("echo wide 100")
        tty.expect("> ")
        tty.eof()
        assert tty.wait() == 3
        assert tty.screen().splitlines()[:3] == ["ready True 60", "done", "> héllo 世界"]
        with pytest.raises(AssertionError, match="the program ended without 'never'"):
            tty.expect("never")


def test_leaving_the_block_kills_the_program(terminal: OpenTerminal, repl: Path) -> None:
    with terminal(program=repl) as tty:
        tty.expect("> ")
        with pytest.raises(AssertionError, match="s passed without"):
            tty.expect("never", timeout=0.01)
    assert tty.process.returncode == -9


SCREENS = [
    ("one\r\ntwo", "one\ntwo"),
    ("abc\rX", "Xbc"),
    ("abc\b\b\x1b[K", "a"),
    ("a\r\nb\x1b[A\x1b[C!", "a !\nb"),
    ("abcdef\x1b[3G\x1b[2P", "abef"),
    ("abcdef\x1b[3G\x1b[2@", "ab  cdef"),
    ("junk\x1b[2J\x1b[Hclean", "clean"),
    ("\x1b[2;3Hx", "\n  x"),
    ("\x1b]0;title\x07\x1b[?2004h\x1b[31mred\x1b[0m", "red"),
    ("0123456789x", "0123456789\nx"),
    ("012345678世", "012345678\n世"),
    ("世\x1b[3Gx", "世x"),
    ("e\u0301\x1b[2Gx", "ex"),
    ("1\n\r2\n\r3\n\r4\n\r5", "3\n4\n5"),
    ("\x1b7ab\x1b8c", "cb"),
]


@pytest.mark.parametrize(("output", "shown"), SCREENS)
def test_the_screen_shows_what_a_person_sees(output: str, shown: str) -> None:
    whole, split = Screen(3, 10), Screen(3, 10)
    whole.feed(output)
    for char in output:
        split.feed(char)
    assert whole.text() == split.text() == shown


def test_what_scrolls_off_is_kept() -> None:
    screen = Screen(2, 10)
    screen.feed("1\r\n2\r\n3\x1b[?2004h")
    assert (screen.text(), screen.text(history=True)) == ("2\n3", "1\n2\n3")
    assert screen.modes == {"2004"} and screen.plain == "1\n2\n3"


# The fixtures


def test_the_repository_is_clean_and_on_main(git_repo: Path, git: Git) -> None:
    assert git("status", "--porcelain", cwd=git_repo) == ""
    assert git("branch", "--show-current", cwd=git_repo) == "main\n"
    assert git("log", "--format=%an %s", cwd=git_repo) == "Test First commit\n"


def test_run_gives_code_output_and_a_clean_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    monkeypatch.setenv("https_proxy", "http://proxy")
    shown = "import os,sys;print(sorted(os.environ));sys.stderr.write(sys.stdin.read());sys.exit(4)"
    program = tmp_path / "program.py"
    program.write_text(shown, encoding="utf-8")
    done = run("--flag", program=program, stdin="data\n", env={"EXTRA": "1", "TERM": None})
    assert (done.code, done.err) == (4, "data\n")
    assert "'EXTRA'" in done.out and "'HOME'" in done.out
    assert not any(name in done.out for name in ("OLLAMA", "proxy", "TERM", "PYTEST"))
    assert run(program=program).err == ""


def test_a_program_that_does_not_end_fails_the_test(run: Run) -> None:
    argv = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with pytest.raises(AssertionError, match="s passed; b'up"):
        run(argv=argv, timeout=0.5)


def test_main_in_this_process_does_what_the_program_does(
    run: Run, run_here: Run, server: OllamaServer
) -> None:
    server.script([], then="<final>grün\n</final>")
    for start in (run, run_here):
        done = start("--host", server.url, "-p", "x", stdin="data", env={"NO_COLOR": "1"})
        assert (done.code, done.out) == (0, "grün\n") and "data" in server.prompts[-1]
        assert start("--resume", "nonesuch", "x").code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_stray_children_die_with_the_test(spawn: Spawn, agent_env: dict[str, str]) -> None:
    stray = [
        sys.executable,
        "-c",
        "import os, time; print(os.getpid(), flush=True); time.sleep(60)",
    ]
    parent = f"import subprocess; subprocess.Popen({stray!r}, start_new_session=True).wait()"
    process = spawn(argv=[sys.executable, "-c", parent])
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    kill_marked(agent_env[MARK])
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.005)
