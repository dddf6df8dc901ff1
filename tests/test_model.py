"""The model's server and its faults: each becomes one sentence, and nothing is lost."""

import json
import socket

import pytest

from conftest import DONE
from ollama_replies import write
from ollama_server import Model, OllamaServer, Reply


def dead_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def said(done, words, code=1):
    """The program ended with this code, and one sentence about the model holds the words."""
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    told = [line for line in done.err.splitlines() if words in line]
    assert len(told) == 1 and told[0].rstrip().endswith((".", ")")), done.err


FAULTS = {
    "a garbage line": (Reply("half", garbage_line="<html>"), "no usable answer (JSONDecodeError"),
    "a line that is no object": (Reply("half", garbage_line="[1]"), "no usable answer (Attribute"),
    "a bad request": (Reply("no such option", status=400), "no usable answer (400 no such option)"),
    "not signed in": (Reply(status=401, body={"error": "unauthorized"}), "(401 unauthorized)"),
    "an empty refusal": (Reply(status=403, body=""), "no usable answer (403"),
    "the model gone": (Reply("model 'qwen3.5:4b' not found", status=404), "ollama pull qwen3.5:4b"),
    "out of memory": (Reply("unable to load full model on GPU", status=500), "Take a smaller"),
    "the model's death": (Reply("half", error_line="model runner has stopped"), "runner has stopp"),
    "busy": (Reply("server busy, please try again.", status=503), "(503 server busy"),
    "a reset": (Reply("half an answer", drop_after=4), "no usable answer (ConnectionReset"),
    "a stream that breaks off": (Reply("half", drop_after=2, drop="close"), "before it was done"),
    "a stream without its end": (Reply("half", no_done=True), "before it was done"),
    "an empty stream": (Reply(body=""), "before it was done"),
    "silence": (Reply(hang=5), "was silent for 0.3 s"),
    "silence in the middle": (Reply("half of it", hang=5, hang_after=4), "was silent for 0.3 s"),
    "escape sequences": (Reply("\x1b[2Jboom\u202e", status=400), r"\x1b[2Jboom\u202e"),
    "an error that is no text": (Reply(status=500, body={"error": {"a": [1]}}), "no usable answer"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_server_is_one_sentence_and_the_session_goes_on(agent, server, repo, name):
    fault, words = FAULTS[name]
    said(agent([write("new.txt"), fault, fault], *AUTO, "--ollama-timeout", "0.3", "add it"), words)
    (file,) = repo.glob(".mini-coding-agent/sessions/*.json")
    roles = [e["role"] for e in json.loads(file.read_text())["history"] if e["role"] != "file"]
    assert roles == ["user", "tool"] and (repo / "new.txt").read_text() == "x\n"
    done = agent([], "--resume", "latest", "and now?")
    assert (done.code, done.out) == (0, "done\n") and "add it" in server.prompts[-1]


AUTO = ("--approval", "auto")
PASSING = [
    "a reset",
    "a stream that breaks off",
    "a stream without its end",
    "busy",
    "the model's death",
]


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_met_with_one_more_try(agent, server, name):
    done = agent([FAULTS[name][0]], "hello?")
    assert (done.code, done.out) == (0, "done\n")
    sent = [request.body for request in server.requests if request.path == "/api/generate"]
    assert len(sent) >= 2 and sent[0] == sent[1]


@pytest.mark.parametrize("name", ["a bad request", "silence", "a garbage line"])
def test_what_does_not_pass_is_not_asked_again(agent, server, name):
    agent([FAULTS[name][0]], "--ollama-timeout", "0.3", "hello?")
    assert [request.path for request in server.requests].count("/api/generate") == 1


def test_a_server_that_is_not_there_is_named_with_what_starts_it(run_here, repo):
    done = run_here("--cwd", repo, "--host", f"127.0.0.1:{dead_port()}", "hello?")
    said(done, "`ollama serve`")


def test_an_unknown_model_is_named_with_the_command_that_gets_it(agent, server):
    said(agent([], "--model", "nope:1b", "hello?"), "`ollama pull nope:1b`")
    assert server.prompts == []


@pytest.mark.parametrize(
    "reply", [Reply(thinking="hm, what now"), "<think>hm, what now</think>", "<think>hm", " "]
)
def test_a_reply_that_is_only_thinking_is_a_slip(agent, server, reply):
    done = agent([reply], "What is 1 + 1?")
    assert (done.code, done.out) == (0, "done\n")
    assert "That did nothing" in server.prompts[1] and "hm" not in server.prompts[1].split()


def test_the_window_is_never_larger_than_the_models_own(run_here, repo):
    with OllamaServer([Model("small", 8192), Model("large", 262144)]) as server:
        server.script([], then=DONE)
        for name, asked in (("small", 32768), ("small", 4096), ("large", 32768)):
            flags = ("--cwd", repo, "--host", server.url, "--model", name, "--num-ctx", str(asked))
            assert run_here(*flags, "hello?").code == 0
        sent = [generation.request for generation in server.generations]
        assert [r.options["num_ctx"] for r in sent] == [8192, 4096, 32768]
        assert server.reloads == 1 and all(r.body["truncate"] is False for r in sent)


@pytest.mark.parametrize(
    "form",
    ["127.0.0.1:{}", ":{}", "http://127.0.0.1:{}/", '"0.0.0.0:{}"', " localhost:{} ",
     "http://0.0.0.0:{}"],
)  # fmt: skip
def test_ollama_host_may_be_written_in_each_of_ollamas_forms(run_here, server, repo, form):
    server.script([], then=DONE)
    env = {"OLLAMA_HOST": form.format(server.port)}
    assert run_here("--cwd", repo, "hello?", env=env).out == "done\n"


def test_a_proxy_is_for_other_machines_alone(run_here, server, repo):
    server.script([], then=DONE)
    proxy = {"http_proxy": f"http://127.0.0.1:{dead_port()}", "no_proxy": None}
    assert run_here("--cwd", repo, "--host", server.url, "hello?", env=proxy).out == "done\n"
    proxy["http_proxy"] = server.url
    assert run_here("--cwd", repo, "--host", "http://box.example", "hello?", env=proxy).code == 1
    assert server.requests[-1].path == "http://box.example/api/show"
