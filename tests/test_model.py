"""Ollama as it is: the window, the stream and the faults, through main() and a server."""

from __future__ import annotations

import json
import math
import re
import socket
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import Run
from ollama_replies import call
from ollama_server import Json, Model, OllamaServer, Reply
from program import Result

MODEL = "qwen3.5:4b"
DONE = "<final>all is done</final>"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
DIED = "model runner has unexpectedly stopped, this may be due to resource limitations"
STOPPED = "an error was encountered while running the model: unexpected EOF"


LOOK = call("read_file", path="calc.py")


class Agent:
    """The program at work on the repository, with a server."""

    def __init__(self, run: Run, server: OllamaServer, repo: Path) -> None:
        self.run, self.server, self.repo = run, server, repo

    def __call__(self, *args: str, request: str = "look around", **kwargs: Any) -> Result:
        host = [] if "OLLAMA_HOST" in kwargs.get("env", {}) else ["--host", self.server.url]
        flags = [*host, "--cwd", str(self.repo), "--approval", "auto", *args]
        return self.run(*flags, *[request] * bool(request), **kwargs)

    def history(self) -> list[Json]:
        (file,) = (self.repo / ".mini-coding-agent" / "sessions").glob("*.json")
        events: list[Json] = json.loads(file.read_text("utf-8"))["history"]
        return events

    def results(self) -> list[str]:
        return [event["content"] for event in self.history() if event["role"] == "tool"]

    def write(self, name: str, line: str) -> None:
        """Write a file of 200 lines, so that one read shows it all."""
        (self.repo / name).write_text((line + "\n") * 200, "utf-8")


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mca, "RETRY_SECONDS", 0.02)


@pytest.fixture
def agent(run_here: Run, server: OllamaServer, repo: Path) -> Agent:
    return Agent(run_here, server, repo)


def ended_well(result: Result) -> None:
    assert (result.code, result.out) == (0, "all is done\n"), result.err


def failed(result: Result, pattern: str, lines: int = 1) -> None:
    """It ended with code 1 and said why, in a line; a retry has a line of its own."""
    assert (result.code, result.out) == (1, ""), result
    assert "Traceback" not in result.err
    told = [line for line in result.err.splitlines() if re.search(pattern, line)]
    assert len(told) == lines, result.err


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# The window


def test_every_request_has_the_same_options_so_that_the_model_is_loaded_once(agent: Agent) -> None:
    delegate = call("delegate", task="find the adder")
    agent.server.script([LOOK, delegate, LOOK, "<final>calc.py</final>", DONE, "plain words"])
    ended_well(agent())
    assert agent("--resume", "latest", request="go on").out == "plain words\n"
    bodies = [generation.request.body for generation in agent.server.generations]
    assert len(bodies) == 6
    for body in bodies:
        assert (body["options"]["num_ctx"], body["options"]["num_batch"]) == (16384, 256)
        assert body["options"]["presence_penalty"] == 0 and body["options"]["num_predict"] == 512
        assert (body["truncate"], body["think"], body["stream"]) == (False, False, True)
        assert not body.get("raw") and "shift" not in body
        assert re.fullmatch(r"\d+[mh]", body["keep_alive"]) and body["keep_alive"] > "10m"
        assert "num_gpu" not in body["options"] and "num_thread" not in body["options"]
    assert (agent.server.loads, agent.server.reloads) == (1, 0)


@pytest.mark.parametrize(("asked", "granted"), [("4096", 4096), ("65536", 8192)])
def test_the_window_is_the_flags_and_at_most_the_models_own(
    run_here: Run, repo: Path, asked: str, granted: int
) -> None:
    with OllamaServer([Model("small", 8192)]) as server:
        server.script([LOOK, DONE])
        ended_well(Agent(run_here, server, repo)("--model", "small", "--num-ctx", asked))
        assert [g.request.options["num_ctx"] for g in server.generations] == [granted] * 2


def test_a_model_that_has_to_be_loaded_is_announced(run_here: Run, repo: Path) -> None:
    for loaded in ({}, {MODEL: 16384}):
        with OllamaServer(loaded=loaded) as server:
            server.script([DONE])
            result = Agent(run_here, server, repo)()
            ended_well(result)
            assert (MODEL in result.err and "oading" in result.err) is not bool(loaded)


def digits_cost_more(text: str) -> int:
    digits = sum(char in "0123456789" for char in text)
    return math.ceil(len(text.encode()) / 3.6 + digits * 0.6)


DENSE = [call("read_file", path=name) for name in ("plain1", "plain2", "plain3", "dense")]


def dense_files(agent: Agent) -> None:
    """Four files of which the last has three times the tokens that its length lets expect."""
    agent.write("plain1", "some words that are as plain as can be, at all")
    agent.write("plain2", "other words that are as plain as they ever are")
    agent.write("plain3", "still more words, and all as plain as can be")
    agent.write("dense", "7" * 49)


def test_a_refused_prompt_is_folded_by_the_counts_in_the_nested_json(
    run_here: Run, repo: Path
) -> None:
    with OllamaServer(counter=digits_cost_more) as server:
        agent = Agent(run_here, server, repo)
        dense_files(agent)
        server.script([*DENSE, DONE])
        request = "read the four files " + "one after the other " * 30
        result = agent(request=request)
        ended_well(result)
        ((_, refusal),) = server.refused
        assert "exceed_context_size_error" in refusal
        assert len(server.prompts) == 5 and not any(g.truncated for g in server.generations)
        assert all(request.strip() in prompt for prompt in server.prompts)
        assert server.prompts[4].count("7" * 49) == 200
        assert server.prompts[3].count("plain as they ever") == 200
        assert server.prompts[4].count("plain as they ever") < 5
        assert len(re.findall("(?m)^.*fold.*$", result.err)) == 1, result.err


def test_a_cut_by_an_old_server_is_reported_in_one_line_and_folded(
    run_here: Run, repo: Path
) -> None:
    with OllamaServer(counter=digits_cost_more, honours_truncate=False) as server:
        agent = Agent(run_here, server, repo)
        dense_files(agent)
        server.script([*DENSE, "<final>I have lost my task</final>", DONE])
        result = agent(request="read the four files")
        ended_well(result)
        assert [g.truncated for g in server.generations] == [False] * 4 + [True, False]
        assert len(re.findall("(?m)^.*cut.*$", result.err)) == 1, result.err
        assert "lost my task" not in json.dumps(agent.history())


def test_a_prompt_of_half_the_window_is_not_taken_for_a_cut_one(agent: Agent) -> None:
    dense_files(agent)
    agent.server.script([*DENSE[:2], Reply(DONE, prompt_eval_count=8194)])
    result = agent()
    ended_well(result)
    assert 6000 < agent.server.generations[2].prompt_tokens < 9500
    assert "cut" not in result.err and "fold" not in result.err


@pytest.mark.parametrize("bytes_per_token", [2.2, 3.6, 6.0])
def test_the_budget_follows_what_the_server_counts(
    run_here: Run, repo: Path, bytes_per_token: float
) -> None:
    with OllamaServer(
        counter=lambda text: math.ceil(len(text.encode()) / bytes_per_token)
    ) as server:
        agent = Agent(run_here, server, repo)
        names = [f"words{number}" for number in range(14)]
        for name in names:
            agent.write(name, f"{name} holds words that are plain as can be")
        server.script([*(call("read_file", path=name) for name in names), DONE])
        ended_well(agent("--max-steps", "20"))
        assert server.refused == []
        sizes = [generation.prompt_tokens for generation in server.generations]
        assert max(sizes) > 0.7 * 16384 and max(sizes) + 512 <= 16384
        assert {g.request.options["num_predict"] for g in server.generations} == {512}


@pytest.mark.parametrize("window", [2048, 4096])
def test_a_result_larger_than_the_window_is_clipped_and_no_error(agent: Agent, window: int) -> None:
    agent.write("large", "these are plain words, twelve thousand characters of them")
    agent.server.script([call("read_file", path="large"), DONE])
    ended_well(agent("--num-ctx", str(window), "--max-new-tokens", "128"))
    assert agent.server.refused == [] and agent.results()[0].count("plain words") > 5
    assert all(g.prompt_tokens + 128 <= window for g in agent.server.generations)


# The stream: its end

RAW = '<tool name="write_file" path="new.txt"><content>\nnew\n</content></tool>'
INVENTED = "\n[tool:read_file]\nan invented result\n<final>an invented answer</final>\n" * 100


@pytest.mark.parametrize("complete", [LOOK, RAW, "<final>all is done</final>"])
def test_the_server_stops_as_soon_as_a_call_or_answer_is_complete(
    agent: Agent, complete: str
) -> None:
    chatter = Reply(complete + INVENTED, chunk=8, delay_between=0.002, limited=False)
    agent.server.script([chatter, DONE])
    result = agent()
    ended_well(result)
    agent.server.wait_for(cancelled=1)
    assert agent.server.sent_chars[0] < len(complete) + 700
    assert "invented" not in "".join(agent.server.prompts) + result.out
    assert agent.server.reloads == 0


def test_the_counts_that_follow_a_complete_call_are_waited_for(agent: Agent) -> None:
    agent.server.script([LOOK, DONE])
    result = agent()
    ended_well(result)
    total = sum(generation.prompt_tokens for generation in agent.server.generations)
    assert agent.server.cancelled == 0 and f"{total} prompt tokens" in result.err.replace(",", "")


@pytest.mark.parametrize("ending", [{"hang": 90.0}, {"drop": "close"}, {"drop": "reset"}])
def test_a_complete_call_stands_whatever_happens_after_it(agent: Agent, ending: Json) -> None:
    where = "hang_after" if "hang" in ending else "drop_after"
    agent.server.script([Reply(LOOK, **ending, **{where: len(LOOK)}), DONE])
    ended_well(agent())
    assert len(agent.server.generations) == 2 and "def add" in agent.results()[0]


BROKEN_OFF = [
    Reply("I was about to", no_done=True),
    Reply("I was about to say", drop_after=14, drop="close"),
    Reply("I was about to say", drop_after=14, drop="reset"),
]


@pytest.mark.parametrize("reply", BROKEN_OFF, ids=["no done", "closed", "reset"])
def test_a_reply_that_breaks_off_is_kept_and_tried_once_more(agent: Agent, reply: Reply) -> None:
    agent.server.script([LOOK, reply, DONE])
    result = agent()
    ended_well(result)
    assert len(agent.server.generations) == 3 and "once more" in result.err
    (kept,) = [event for event in agent.history() if event["content"] == "I was about to"]
    assert kept["role"] == "assistant"
    assert "<final>I was about to" not in agent.server.prompts[2]


def test_each_step_has_one_retry_and_no_second_one(agent: Agent) -> None:
    agent.server.script([BROKEN_OFF[0], LOOK, BROKEN_OFF[0], BROKEN_OFF[2], DONE])
    result = agent()
    assert (result.code, result.out) == (1, "") and "Traceback" not in result.err
    assert len(agent.server.generations) == 4
    assert [event["content"] for event in agent.history()].count("I was about to") == 3
    ended_well(agent("--resume", "latest", request="go on"))
    assert "look around" in agent.server.prompts[-1]


@pytest.mark.parametrize("end", [("</think>",), ("</", "think", ">"), ("<", "/thi", "nk", ">")])
def test_a_call_that_turns_out_as_thinking_is_read_past_however_slowly_the_rest_comes(
    agent: Agent, repo: Path, end: tuple[str, ...]
) -> None:
    draft = call("write_file", path="draft.txt", content="x")
    pieces = (len(draft), *map(len, end), 7)
    text = f"{draft}{''.join(end)}I only thought of it.\n<final>all is done</final>"
    pause = {"hang": 0.6, "hang_after": len(draft) + len("</think>")}
    agent.server.script([Reply(text, chunk=pieces, **pause)])
    ended_well(agent("--approval", "auto"))
    assert not (repo / "draft.txt").exists()


# The stream: cut at the limit of new tokens

CUT = [
    '<tool>{"name":"run_shell","args":{"command":"touch new.txt; echo ' + "words " * 100,
    '<tool name="write_file" path="new.txt"><content>\n' + "words\n" * 100,
    '<tool name="patch_file" path="calc.py"><old_text>a + b</old_text><new_text>' + "a\n" * 200,
]


@pytest.mark.parametrize("text", CUT, ids=["shell", "write", "patch"])
def test_a_call_cut_at_the_limit_is_not_run_and_gets_twice_the_room(
    agent: Agent, text: str
) -> None:
    before = (agent.repo / "calc.py").read_bytes()
    agent.server.script([text, text, LOOK, DONE])
    result = agent("--max-new-tokens", "60")
    ended_well(result)
    assert [g.request.options["num_predict"] for g in agent.server.generations] == [
        60,
        120,
        240,
        60,
    ]
    assert not (agent.repo / "new.txt").exists() and len(agent.results()) == 1
    assert (agent.repo / "calc.py").read_bytes() == before
    assert "--max-new-tokens" in result.err.splitlines()[-1]


def test_a_call_that_was_closed_before_the_cut_is_run(agent: Agent) -> None:
    agent.server.script([Reply(LOOK, done_reason="length"), DONE])
    ended_well(agent())
    assert "def add" in agent.results()[0]


def test_the_room_after_a_cut_is_no_more_than_the_window_leaves(agent: Agent) -> None:
    agent.server.script([CUT[1] + "words\n" * 2000, LOOK, DONE])
    ended_well(agent("--max-new-tokens", "2000", "--num-ctx", "6000"))
    for generation in agent.server.generations:
        room = generation.request.options["num_predict"]
        assert room > 500 and generation.prompt_tokens + room <= 6000


@pytest.mark.parametrize("start", ["<final>", ""], ids=["final", "plain words"])
def test_a_cut_answer_gets_one_retry_and_is_then_shown_and_marked(agent: Agent, start: str) -> None:
    text = start + "first words " + "and many more " * 200 + "and the end</final>"
    agent.server.script([text, text])
    result = agent("--max-new-tokens", "60")
    assert (result.code, len(agent.server.generations)) == (0, 2), result.err
    assert "first words and many" in result.out and "the end" not in result.out
    assert re.search(r"\bcut\b", result.out.splitlines()[-1])
    assert "--max-new-tokens" in result.out + result.err


def test_a_cut_answer_whose_retry_is_whole_leaves_no_mark(agent: Agent) -> None:
    agent.server.script(["<final>" + "many words " * 200, DONE])
    ended_well(agent("--max-new-tokens", "60"))


# The stream: what the server swallows

NATIVE = "<tool_call>\n<function=read_file>\n<parameter=path>\ncalc.py\n</parameter>\n</function>\n"
SWALLOWED = [
    (NATIVE + "</tool_call>", True),
    ("Let me look at it.\n" + NATIVE + "</tool_call>", True),
    ('<tool_call>{"name": "read_file", "arguments": {}}</tool_call>', True),
    ("Let me look.\n<tool_call>\n<parameter=path>\nx\n</parameter>\n</tool_call>", True),
    (Reply("", eval_count=40), False),
    (Reply("  \n", eval_count=40), False),
    (Reply("", thinking="I might read it, or I might not. " * 9), False),
]


@pytest.mark.parametrize(("item", "parser"), SWALLOWED)
def test_a_reply_without_text_is_a_slip_that_the_model_is_told_of(
    run_here: Run, repo: Path, item: str | Reply, parser: bool
) -> None:
    with OllamaServer(parser=parser) as server:
        agent = Agent(run_here, server, repo)
        server.script([item, LOOK, DONE])
        result = agent()
        if item == SWALLOWED[1][0]:  # its words arrive, as an answer in plain words
            assert result.out == "Let me look at it.\n"
            return
        ended_well(result)
        assert len(server.generations) == 3
        assert [event["role"] for event in agent.history()][-4:-2] != ["user", "tool"]
        notices = [event["content"] for event in agent.history() if event["role"] == "notice"]
        assert len(notices) == 1 and "<tool>" in notices[0] and notices[0] in server.prompts[1]


PARSER_ERRORS = [
    "XML syntax error on line 3: element <parameter> closed by </function>",
    "expected element type <function> but have <parameter>",
    "unexpected EOF",
    "EOF",
    "tool 'read_file' not found",
    "error parsing tool call: raw='{\"path\": ' err=unexpected end of JSON input",
    "failed to parse JSON: invalid character 'x'",
]


@pytest.mark.parametrize("streamed", [False, True], ids=["HTTP 500", "error line"])
def test_an_error_of_the_servers_parser_is_a_slip_and_no_fault(
    agent: Agent, streamed: bool
) -> None:
    slips = [
        Reply("Let me see.", error_line=text) if streamed else Reply(text, status=500)
        for text in PARSER_ERRORS
    ]
    agent.server.script([*slips, LOOK, DONE])
    ended_well(agent())
    assert len(agent.server.generations) == len(slips) + 2
    events = [(event["role"], event["content"]) for event in agent.history()]
    notices = [content for role, content in events if role == "notice"]
    assert len(notices) == len(slips) and all("<tool>" in notice for notice in notices)
    assert events.count(("assistant", "Let me see.")) == streamed * len(slips)


def test_a_call_that_the_server_took_out_of_the_text_is_used(agent: Agent) -> None:
    native = {"function": {"name": "read_file", "arguments": {"path": "calc.py"}}}
    agent.server.script([Reply("", tool_calls=[native], eval_count=30), DONE])
    ended_well(agent())
    assert "def add" in agent.results()[0]


def test_thinking_alone_is_a_retry_that_names_the_reason(agent: Agent) -> None:
    agent.server.script([Reply("", thinking="hm, hm"), DONE])
    ended_well(agent())
    assert "think" in agent.history()[1]["content"] and "hm, hm" not in agent.server.prompts[1]


# Silence


@pytest.mark.parametrize("silent", [{"hang_after": None}, {"hang_after": 5}])
def test_silence_past_the_limit_ends_the_request_and_names_the_flag(
    agent: Agent, silent: Json
) -> None:
    agent.server.script([Reply("words " * 20, hang=60.0, **silent)])
    failed(agent("--ollama-timeout", "0.3"), "--ollama-timeout")
    assert len(agent.server.generations) == 1
    agent.server.script([DONE])
    ended_well(agent("--resume", "latest", request="go on"))


def test_the_limit_bounds_silence_and_not_the_whole_reply(agent: Agent) -> None:
    agent.server.script([Reply(DONE, chunk=3, delay_between=0.08)])
    ended_well(agent("--ollama-timeout", "0.5"))


# Where the server is

HOSTS = [
    ("localhost", "http://localhost:11434"),
    ("gpu-box", "http://gpu-box:11434"),
    ("gpu-box:8080", "http://gpu-box:8080"),
    (":8080", "http://127.0.0.1:8080"),
    ("http://gpu-box", "http://gpu-box:80"),
    ("https://gpu-box", "https://gpu-box:443"),
    ("https://gpu-box:8443/", "https://gpu-box:8443"),
    ("http://gpu-box:8080/ollama", "http://gpu-box:8080/ollama"),
    ("gpu-box/ollama", "http://gpu-box:11434/ollama"),
    ("0.0.0.0", "http://127.0.0.1:11434"),
    ("0.0.0.0:8080", "http://127.0.0.1:8080"),
    ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
    ("[::1]:8080", "http://[::1]:8080"),
    ("[::1]", "http://[::1]:11434"),
    ("::1", "http://[::1]:11434"),
    ("::", "http://[::1]:11434"),
    ("[::]:8080", "http://[::1]:8080"),
    ("gpu-box:99999", "http://gpu-box:11434"),
    ("gpu-box:port", "http://gpu-box:11434"),
    (' "gpu-box:8080" ', "http://gpu-box:8080"),
    ("'gpu-box:8080'", "http://gpu-box:8080"),
    ("ollama.com", "https://ollama.com:443"),
    ("", "http://127.0.0.1:11434"),
]


@pytest.mark.parametrize(("host", "url"), HOSTS)
def test_a_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert mca.server_url(host) == url


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "0.0.0.0:{}", "http://localhost:{}/", ":{}"])
def test_ollama_host_names_the_server(agent: Agent, form: str) -> None:
    agent.server.script([DONE])
    ended_well(agent(env={"OLLAMA_HOST": form.format(agent.server.port)}))


def test_the_flag_wins_over_ollama_host(agent: Agent) -> None:
    agent.server.script([DONE])
    dead = {"OLLAMA_HOST": f"127.0.0.1:{dead_port()}"}
    ended_well(agent("--host", f"127.0.0.1:{agent.server.port}", env=dead))


def test_no_proxy_stands_between_us_and_this_machine(agent: Agent) -> None:
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy")
    env = dict.fromkeys(names, f"http://127.0.0.1:{dead_port()}")
    for host in (agent.server.url, f"localhost:{agent.server.port}"):
        agent.server.script([DONE])
        ended_well(agent("--host", host, env=env))


def test_a_proxy_is_asked_for_a_server_elsewhere(agent: Agent) -> None:
    result = agent("--host", "http://ollama.invalid:11434", env={"http_proxy": agent.server.url})
    assert result.code == 1 and "Traceback" not in result.err
    assert agent.server.requests[0].path.startswith("http://ollama.invalid:11434/api/")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/generate", 302),
        ("/api/generate", 307),
        ("/api/generate", 308),
        ("/api/generate", 301),
    ],
)
def test_a_redirect_is_never_followed(agent: Agent, path: str, status: int) -> None:
    with OllamaServer() as other:
        agent.server.faults[path] = Reply(redirect=other.url + path, status=status)
        failed(agent(), "--host")
        assert other.requests == [] and len(agent.server.generations) == 0


def test_a_redirect_of_a_small_request_is_not_followed_and_does_no_harm(agent: Agent) -> None:
    with OllamaServer() as other:
        agent.server.faults["/api/tags"] = Reply(redirect=other.url + "/api/tags", status=301)
        assert agent().code == 0
        assert other.requests == []


# The faults

ONCE: list[tuple[str, Reply, str]] = [
    ("garbage line", Reply("hm", garbage_line="%%% no json %%%"), "%%% no json %%%"),
    ("array line", Reply("hm", garbage_line='["no", "object"]'), "Ollama"),
    ("400", Reply("invalid model name", status=400), "invalid model name"),
    ("401", Reply("unauthorized", status=401), "unauthorized.*signin"),
    ("403 with text", Reply("ollama cloud is disabled", status=403), "ollama cloud is disabled"),
    ("403 without text", Reply(body="", status=403), r"403"),
    ("404 model", Reply("model 'x' not found", status=404), "ollama pull qwen3.5:4b.*--model"),
    ("404 page", Reply(body="404 page not found", status=404), "404"),
    ("500", Reply("something odd went wrong", status=500), "something odd went wrong"),
    ("500 option", Reply('option "num_ctx" must be of type integer', status=500), "num_ctx"),
    ("error line", Reply("hm", error_line="something odd went wrong"), "something odd"),
    ("escapes", Reply("\x1b[31mred\x07", status=500), r"\\x1b\[31mred\\x07"),
    ("html", Reply(body="<html>A router's page</html>"), "<html>"),
    ("json, not ollama's", Reply(body='"hello"'), "hello"),
    (
        "no memory",
        Reply("model requires 9.1 GiB but only 3.2 GiB are available", status=500),
        "9.1 GiB.*(--model|--num-ctx)",
    ),
    (
        "no memory at start",
        Reply("llama-server process has terminated: out-of-memory during startup", status=500),
        "out-of-memory.*(--model|--num-ctx)",
    ),
    (
        "cannot load",
        Reply("timed out waiting for llama-server to start - progress 0.10", status=500),
        "timed out waiting for llama-server",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "words"), [row[1:] for row in ONCE], ids=[r[0] for r in ONCE])
def test_a_fault_is_one_sentence_and_the_session_is_kept(
    agent: Agent, reply: Reply, words: str
) -> None:
    agent.server.script([LOOK, reply, DONE])
    failed(agent(), words)
    assert len(agent.server.generations) == 2
    events = agent.history()
    assert [event["role"] for event in events][:2] == ["user", "tool"]
    assert "def add" in events[1]["content"]


def test_a_conversation_and_its_session_go_on_after_every_fault(agent: Agent) -> None:
    replies = [reply for _, fault, _ in ONCE for reply in (fault, "<final>yes</final>")]
    agent.server.script([LOOK, *replies])
    result = agent(request="", stdin="request\n" * len(replies))
    assert (result.code, result.out) == (0, "yes\n" * len(ONCE)), result.err
    assert "Traceback" not in result.err
    agent.server.script([DONE])
    ended_well(agent("--resume", "latest", request="go on"))
    assert agent.server.prompts[-1].count("[user]\nrequest\n") == len(replies)


TWICE: list[tuple[str, Reply, str]] = [
    ("503", Reply(BUSY, status=503), "server busy"),
    ("runner stopped", Reply(DIED, status=500), "unexpectedly stopped"),
    ("runner stopped in the stream", Reply("hm", error_line=STOPPED), "while running the model"),
]


@pytest.mark.parametrize(("reply", "words"), [row[1:] for row in TWICE], ids=[r[0] for r in TWICE])
def test_what_may_pass_is_tried_once_more(agent: Agent, reply: Reply, words: str) -> None:
    agent.server.script([reply, DONE])
    result = agent()
    ended_well(result)
    assert len(agent.server.generations) == 2 and re.search(words, result.err)


def test_what_does_not_pass_is_a_fault_after_one_retry(agent: Agent) -> None:
    agent.server.script([TWICE[0][1]] * 2, then=DONE)
    failed(agent(), "server busy", lines=2)
    assert len(agent.server.generations) == 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=""),
        Reply("words " * 9, content_length=90_000, no_done=True),
        Reply("words " * 9, content_length=50),
    ],
    ids=["empty body", "length too large", "length too small"],
)
def test_a_reply_of_a_wrong_length_is_a_fault_in_words(agent: Agent, reply: Reply) -> None:
    agent.server.script([reply, reply])
    result = agent()
    assert (result.code, result.out) == (1, "") and "Traceback" not in result.err
    assert 1 <= len(agent.server.generations) <= 2
    agent.server.script([DONE])
    ended_well(agent("--resume", "latest", request="go on"))


def test_a_server_that_is_not_there_is_named_with_what_to_do(agent: Agent) -> None:
    port = dead_port()
    failed(agent("--host", f"127.0.0.1:{port}"), f"127.0.0.1:{port}.*ollama serve")
    agent.server.script([DONE])
    ended_well(agent("--resume", "latest", request="go on"))
    assert "look around" in agent.server.prompts[0]


def test_a_host_name_that_nobody_knows_is_named(agent: Agent) -> None:
    failed(agent("--host", "http://no-such-host.invalid:11434"), "no-such-host.invalid")


@pytest.mark.parametrize("host", ["http://[::1", "http://bad host", "ftp://gpu-box", "a:b:c://"])
def test_a_host_that_is_none_is_a_sentence(agent: Agent, host: str) -> None:
    result = agent("--host", host)
    assert result.code in (1, 2) and "Traceback" not in result.err and result.err.strip()


def test_a_model_that_is_not_pulled_is_named_with_those_that_are(run_here: Run, repo: Path) -> None:
    with OllamaServer(["one:1b", "two:2b"]) as server:
        result = Agent(run_here, server, repo)("--model", "three:3b")
        failed(result, r"ollama pull three:3b.*one:1b, two:2b")


@pytest.mark.parametrize("path", ["/api/show", "/api/ps"])
@pytest.mark.parametrize(
    "fault",
    [Reply("odd", status=500), Reply(body="no json"), Reply(body="[1]"), Reply(body="{}")],
    ids=["500", "no json", "a list", "nothing in it"],
)
def test_a_fault_of_the_small_requests_is_no_traceback(
    agent: Agent, path: str, fault: Reply
) -> None:
    agent.server.faults[path] = fault
    agent.server.script([DONE])
    result = agent()
    assert result.code in (0, 1) and "Traceback" not in result.err
    assert result.code == 0 or re.search("odd|JSON|not Ollama", result.err), result.err


def test_a_fault_inside_a_subagent_ends_the_request_like_any_other(agent: Agent) -> None:
    agent.server.script([call("delegate", task="look"), Reply("odd things", status=500), DONE])
    failed(agent(), "odd things")
    ended_well(agent("--resume", "latest", request="go on"))
