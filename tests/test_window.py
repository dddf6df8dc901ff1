"""The window holds: random histories through the loop, with a model that counts tokens."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mini_coding_agent as mca
from conftest import Run
from ollama_replies import call
from ollama_server import OllamaServer

TAIL = "\nCurrent user request:\n"
CHILD = "(read-only"
PIECES = [
    "plain words of a plain text ",
    "def function(argument):\n    return argument\n",
    "{'key': [1, 2, 3], 'x': 0.25}\n",
    "größer als Käse, 漢字, ✓ ",
    "<|im_end|> and <think> and <tool_call>\n",
    "[user]\nCurrent user request:\nMemory:\n",
    "\x1b[31m\t\r\n",
    "</content></tool><final>no</final>\n",
]


def prose(rng: random.Random, most: int) -> str:
    """Text of up to `most` characters; short ones are as likely as long ones."""
    wanted = int(math.exp(rng.uniform(0, math.log(most))))
    text = ""
    while len(text) < wanted:
        text += rng.choice(PIECES) * rng.randint(1, 9)
    return text[:wanted]


class CountingModel:
    """Writes random replies, counts as a server does, and checks each prompt that it gets."""

    def __init__(self, rng: random.Random, window: int, bytes_per_token: float) -> None:
        self.rng, self.tokens, self.bytes_per_token = rng, window, bytes_per_token
        self.agent: Any = None  # `new_agent` sets it
        self.next_reply: Callable[[], str] = self.random_reply
        self.told: list[str] = []  # the kinds of what the loop reported, subagents included
        self.last = {False: "", True: ""}  # the last prompts of the agent and of its subagent
        self.folds_seen = {False: 0, True: 0}
        self.calls = self.refused = 0

    def tell(self, kind: str, what: Any) -> None:
        self.told.append(kind)

    def count(self, text: str) -> int:
        return 12 + math.ceil(len(text.encode("utf-8", "surrogatepass")) / self.bytes_per_token)

    def complete(self, prompt: str, max_new_tokens: int) -> mca.Completion:
        assert max_new_tokens >= self.agent.max_new_tokens
        assert self.agent.window.estimate(prompt) + max_new_tokens <= self.tokens
        self.check(prompt)
        counted = self.count(prompt)
        if counted >= self.tokens:
            self.refused += 1
            raise mca.ModelError("too long", overflow=(counted, self.tokens))
        self.calls += 1
        assert self.refused or counted + max_new_tokens <= self.tokens * 1.05
        return mca.Completion(self.next_reply(), prompt_tokens=counted, output_tokens=9)

    def check(self, prompt: str) -> None:
        body, _, tail = prompt.rpartition(TAIL)
        child = CHILD in tail
        assert self.count(tail) <= 150 * 3.6 / self.bytes_per_token
        folds = self.told.count("subagent fold" if child else "fold")
        if child and "subagent call" not in self.told[-2:] and self.told[-1:] == ["call"]:
            self.last[True] = ""  # a new subagent begins
        if folds == self.folds_seen[child]:
            assert body.startswith(self.last[child]), "the prompt changed without a fold"
        self.last[child], self.folds_seen[child] = body, folds
        if not child:
            self.check_newest(body)

    def check_newest(self, body: str) -> None:
        """Request and newest event are whole; above 70 % of the budget the event need not be."""
        agent, events = self.agent, self.agent.session["history"]
        at = max(index for index, event in enumerate(events) if event["role"] == "user")
        request, last = events[at], len(events) - 1
        assert mca.defuse(mca.event_text(request)).rstrip("\n") in body
        if mca.defuse(mca.event_text(events[-1])).rstrip("\n") not in body:
            least = agent.prompt(request["content"], mca.Fold(last, last, at))
            assert agent.window.estimate(least) > 0.7 * agent.window.budget

    def random_reply(self) -> str:
        rng = self.rng
        name = f"f{rng.randrange(12)}.txt"
        start = rng.randrange(1, 60)
        choices = [
            (6, call("read_file", path=name, start=start, end=start + rng.randrange(200))),
            (1, call("read_file", path="no-such-file")),
            (1, call("list_files")),
            (2, call("search", pattern=rng.choice(["plain", "zzz", "("]))),
            (2, call("write_file", path=name, content=prose(rng, 9000))),
            (1, call("patch_file", path=name, old_text=prose(rng, 300), new_text="x")),
            (1, call("run_shell", command="true")),
            (1, call("delegate", task=prose(rng, 200) + "?", max_steps=2)),
            (1, call("no_such_tool", path=prose(rng, 100))),
            (1, "<tool>" + prose(rng, 500).replace("</tool>", "")),
            (3, f"<final>{prose(rng, 1500).replace('</final>', '')}</final>"),
        ]  # fmt: skip
        weights, replies = zip(*choices, strict=True)
        return str(rng.choices(replies, weights)[0])


def new_agent(
    folder: Path, model: CountingModel, session_id: str = "", reply: int = 512, **settings: Any
) -> mca.MiniAgent:
    window = mca.Window(model.tokens, reply)
    store = mca.SessionStore(folder / ".mini-coding-agent" / "sessions")
    settings = {"approval_policy": "auto", "tell": model.tell, "window": window, **settings}
    settings |= {"max_new_tokens": reply}
    workspace = mca.WorkspaceContext.build(folder)
    if session_id:
        agent = mca.MiniAgent.from_session(model, workspace, store, session_id, **settings)
    else:
        agent = mca.MiniAgent(
            model_client=model, workspace=workspace, session_store=store, **settings
        )
    model.agent = agent
    return agent


def play(
    folder: Path, model: CountingModel, calls: int, reply: int = 512, asked: int = 400
) -> None:
    """Requests of up to `asked` characters until the model was called so often; resume at times."""
    rng = model.rng
    for number in range(12):
        text = "".join(prose(rng, 3000) for _ in range(rng.randrange(30)))
        (folder / f"f{number}.txt").write_text(text, "utf-8")
    agent = new_agent(folder, model, reply=reply, max_steps=8)
    while model.calls < calls:
        agent.ask("do " + prose(rng, asked))
        if agent.run.stop == "window":
            return
        if rng.random() < 0.1:
            before = model.last[False].partition("\nMemory:\n")[2]
            agent = new_agent(folder, model, agent.session["id"], reply, max_steps=8)
            after = agent.prompt("go on").rpartition(TAIL)[0].partition("\nMemory:\n")[2]
            assert after.startswith(before)
            model.last[False] = ""


@pytest.mark.parametrize("seed", range(7))
def test_a_random_history_keeps_every_promise_of_the_window(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    model = CountingModel(rng, rng.choice([8192, 16384]), rng.choice([2.5, 3.0, 3.6, 4.4]))
    play(tmp_path, model, calls=90)
    assert model.calls >= 90 and "warning" not in model.told
    folds = model.told.count("fold")
    assert 1 <= folds <= model.calls / 4, "folds are there, and rare"


@pytest.mark.parametrize("seed", range(6))
def test_no_fold_is_told_where_everything_fits(tmp_path: Path, seed: int) -> None:
    model = CountingModel(random.Random(seed), 262_144, 3.6)
    play(tmp_path, model, calls=40)
    assert "fold" not in model.told and model.refused == 0


@pytest.mark.parametrize("bytes_per_token", [1.2, 1.6, 2.0])
def test_a_first_guess_that_was_too_low_is_mended_by_the_refusal(
    tmp_path: Path, bytes_per_token: float
) -> None:
    model = CountingModel(random.Random(7), 16_384, bytes_per_token)
    play(tmp_path, model, calls=40, asked=12_000)
    assert model.calls >= 40 or "window" in model.agent.run.stop


@pytest.mark.parametrize("window", [2048, 3072, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_window_works_or_stops_with_a_clear_message(
    tmp_path: Path, window: int, seed: int
) -> None:
    model = CountingModel(random.Random(seed), window, 3.6)
    play(tmp_path, model, calls=40, reply=256)
    if model.calls < 40:
        said = model.agent.session["history"][-1]["content"]
        assert re.match(rf"Stopped: .*{window}.*--num-ctx", said)
    assert model.calls >= 5


def fixed(model: CountingModel, *replies: str) -> CountingModel:
    waiting = list(replies)
    model.next_reply = lambda: waiting.pop(0)
    return model


@pytest.mark.parametrize("window", [2048, 4096, 8192])
def test_a_result_larger_than_the_window_is_clipped_and_no_error(
    tmp_path: Path, window: int
) -> None:
    (tmp_path / "many.txt").write_text("the first line\n" + "words words\n" * 9000, "utf-8")
    (tmp_path / "one.txt").write_text("the head " + "words " * 15_000 + "the tail", "utf-8")
    model = fixed(
        CountingModel(random.Random(1), window, 3.6),
        call("read_file", path="many.txt", end=9000),
        call("read_file", path="one.txt"),
        call("run_shell", command="seq 20000"),
        "<final>seen</final>",
    )
    agent = new_agent(tmp_path, model, reply=128)
    assert agent.ask("look") == "seen"
    results = [event["content"] for event in agent.session["history"] if event["role"] == "tool"]
    many, one, ran = results
    assert all(100 < len(result) <= min(12_100, 0.9 * window) for result in results)
    assert "the first line" in many and "more lines" in many
    assert "the head" in one and "the tail" in one and mca.CLIP_MARK.search(one)
    assert "20000" in ran and mca.CLIP_MARK.search(ran)


def test_a_request_of_more_than_half_the_window_is_cut_and_named_as_cut(tmp_path: Path) -> None:
    model = fixed(CountingModel(random.Random(1), 4096, 3.6), "<final>seen</final>")
    agent = new_agent(tmp_path, model, reply=256)
    assert agent.ask("first words " + "and more " * 3000 + "last words") == "seen"
    assert "first words" in model.last[False] and "last words" in model.last[False]
    assert mca.CLIP_MARK.search(model.last[False])


def old_events(count: int) -> list[dict[str, Any]]:
    args = {"path": "a.txt"}
    read = {"role": "tool", "name": "read_file", "args": args, "created_at": mca.now()}
    return [
        {"role": "user", "content": "an old request", "created_at": mca.now()},
        *({**read, "content": f"result {number} " + "words " * 20} for number in range(count)),
        {"role": "assistant", "content": "an old answer", "created_at": mca.now()},
    ]


@pytest.mark.parametrize("window", [4096, 16_384])
def test_one_liners_have_a_ceiling_and_the_rest_is_counted(tmp_path: Path, window: int) -> None:
    model = fixed(CountingModel(random.Random(1), window, 3.6), "<final>seen</final>")
    agent = new_agent(tmp_path, model, reply=256)
    agent.session["history"] += old_events(1500)
    assert agent.ask("look") == "seen"
    assert model.told.count("fold") == 1
    transcript = model.last[False].partition("\nTranscript:\n")[2]
    rows = re.findall("(?m)^- .*$", transcript)
    assert rows and max(map(len, rows)) <= 122
    assert model.count("\n".join(rows)) <= 0.2 * window
    (omitted,) = re.findall(r"(?m)^\((\d+) earlier steps omitted\)$", transcript)
    whole = len(re.findall(r"(?m)^\[(?:user|assistant|tool:read_file)\]$", transcript))
    calls = transcript.count("[tool:read_file]")
    assert int(omitted) + len(rows) + (whole - calls) == 1503


def test_a_fold_is_deep_and_told_with_its_figures(tmp_path: Path) -> None:
    said: list[str] = []
    model = fixed(CountingModel(random.Random(1), 16_384, 3.6), "<final>seen</final>")
    agent = new_agent(
        tmp_path, model, tell=lambda kind, what: (model.tell(kind, what), said.append(str(what)))
    )
    agent.session["history"] += old_events(700)
    before = agent.window.estimate(agent.prompt("look"))
    agent.ask("look")
    (line,) = [text for kind, text in zip(model.told, said, strict=True) if kind == "fold"]
    figures = [int(number) for number in re.findall(r"\d+", line.replace(",", ""))]
    assert "\n" not in line and max(figures) >= before
    assert model.count(model.last[False]) <= 0.7 * (16_384 - 512)


def test_a_fold_is_kept_in_the_session_and_undone_by_a_reset(tmp_path: Path) -> None:
    model = fixed(
        CountingModel(random.Random(1), 8192, 3.6), "<final>1</final>", "<final>2</final>"
    )
    agent = new_agent(tmp_path, model)
    agent.session["history"] += old_events(700)
    agent.ask("look")
    again = new_agent(tmp_path, model, agent.session["id"])
    again.ask("look again")
    assert model.told.count("fold") == 1
    again.reset()
    assert "omitted" not in again.prompt("new") and "an old" not in again.prompt("new")


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-ctx", "300"],
        ["--num-ctx", "1024", "--max-new-tokens", "512"],
        ["--num-ctx", "2048", "--max-new-tokens", "4096"],
        ["--num-ctx", "4096", "--max-new-tokens", "4096"],
    ],
)
def test_a_window_that_holds_nothing_is_a_sentence(
    run: Run, server: OllamaServer, repo: Path, flags: list[str]
) -> None:
    server.script([], then="<final>it fits</final>")
    result = run("--host", server.url, "--cwd", repo, *flags, "look")
    assert "Traceback" not in result.err and not any(g.truncated for g in server.generations)
    if result.code:
        assert result.code in (1, 2, 3) and "--num-ctx" in result.out + result.err
    else:
        assert result.out == "it fits\n"
