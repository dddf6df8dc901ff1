"""What Ollama's engine makes of a request: windows, token counts, reloads, the prefix cache.

A simulation without a model, after Ollama 0.33 and llama.cpp; `ollama_server.py` puts it on HTTP.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
LEAD, TRAIL = 3, 9  # tokens that qwen3.5's template puts before and after the prompt
RUNNER_OPTIONS = "num_batch num_gpu num_thread main_gpu use_mmap draft_num_predict"


@dataclass(frozen=True)
class Model:
    """A model that has been pulled."""

    name: str
    context_length: int = 262144
    architecture: str = "qwen35"

    def show(self):
        arch = self.architecture
        info = {"general.architecture": arch, f"{arch}.context_length": self.context_length}
        return {"model_info": info, "parameters": "temperature 1\npresence_penalty 1.5"}


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Json

    @property
    def options(self):
        return self.body.get("options") or {}


@dataclass
class Generation:
    """What the engine made of one /api/generate with a prompt."""

    request: Request
    prompt_tokens: int  # of the whole rendered prompt
    processed: int  # the part of them that was not in the cache
    num_ctx: int
    slot: Slot
    sent_chars: int = 0  # characters of `response` written to the client
    ended: bool = False


@dataclass
class Slot:
    """A cached state: rendered text and output, tokens of the prompt, where a hybrid resumes."""

    text: str
    end: int
    checkpoints: list[int]


@dataclass
class Runner:
    """A loaded model. Another `key` means another process, with an empty cache."""

    num_ctx: int
    key: tuple[Any, ...]
    slots: list[Slot] = field(default_factory=list)  # the live one last, the others in host RAM


class ApiError(Exception):
    """Becomes a response with this status and {"error": text}."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def utf8_tokens(text):
    """The default token counter: 3.6 bytes of UTF-8 to a token, rounded up."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 3.6)


def go_json(value):
    """JSON as Go's json.Marshal writes it: compact, UTF-8, with < > & escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escaped = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return escaped.encode("utf-8", "replace")


def common_prefix(left, right):
    """The number of characters that both begin with."""
    return longest(min(len(left), len(right)), lambda n: left[:n] == right[:n])


def longest(high, fits):
    """The largest n in 0..high with fits(n), for a condition that once broken stays so."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def thinned(points):
    """Checkpoints of older requests that survive: each 8192 tokens from the one before it."""
    kept: list[int] = []
    for point in sorted(points):
        if not kept or point - kept[-1] >= 8192:
            kept.append(point)
    return kept[-30:]


def overflow(tokens, window):
    """llama-server's JSON refusal, which Ollama passes on as a string."""
    size = f"request ({tokens} tokens) exceeds the available context size ({window} tokens)"
    error = {"code": 400, "message": f"{size}, try increasing it"}
    error |= {"type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": window}
    return json.dumps({"error": error})


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime())


class Engine:
    """The models that are pulled and loaded, and what each prompt costs."""

    def __init__(self, models, counter, cache):
        found = [Model(model) if isinstance(model, str) else model for model in models]
        self.models = {model.name: model for model in found}
        self.counter, self.cache = counter, cache
        self.runners: dict[str, Runner] = {}
        self.reloads = 0  # starts of a runner that were caused by changed options

    def find(self, name):
        """The model of that name, or ApiError 404 in Ollama's words."""
        if name not in self.models:
            raise ApiError(404, f"model '{name}' not found")
        return self.models[name]

    def prompt_tokens(self, prompt):
        """The uncut `prompt_eval_count` of a prompt, template included."""
        return LEAD + self.counter(prompt.strip()) + TRAIL

    def admit(self, request):
        """Load what the request needs and place its prompt."""
        model = self.find(request.body.get("model") or "")
        assert request.body["truncate"] is False, "the server would cut the prompt in silence"
        return self._place(request, self._load(model, request.options))

    def _load(self, model, options):
        """The runner for these options."""
        window = max(4, min(options.get("num_ctx") or 4096, model.context_length))
        key = (window, *(options.get(name) for name in RUNNER_OPTIONS.split()))
        old = self.runners.get(model.name)
        if old and old.key == key:
            return old
        self.reloads += old is not None
        self.runners[model.name] = Runner(window, key)
        return self.runners[model.name]

    def _place(self, request, runner):
        text = request.body["prompt"].strip()
        total, window = self.prompt_tokens(text), runner.num_ctx
        if total >= window:
            raise ApiError(400, overflow(total, window))  # where `truncate` is false
        reused = self._reuse(runner, text, total, request.options.get("num_batch") or 512)
        return Generation(request, total, max(1, total - reused), window, runner.slots[-1])

    def _reuse(self, runner, text, total, batch):
        """How many tokens of the prompt are cached; makes its slot the live one."""
        full = text + "\0"  # \0 stands for the closing tokens of the template

        def shared(slot):
            same = common_prefix(slot.text, full)
            return total if same >= len(full) else LEAD + self.counter(full[:same])

        slots = runner.slots or [Slot("", 0, [])]
        live = slots[-1]
        best = live if 2 * shared(live) >= live.end else max(slots, key=shared)
        fork = shared(best) if best.text else 0
        kept = [point for point in best.checkpoints if point <= fork]
        whole = full.startswith(best.text) and best.text != ""
        resumed = {"attention": fork, "none": 0}.get(self.cache, max(kept, default=0))
        resumed = fork if whole and self.cache == "hybrid" else resumed
        new = [point for point in (total - batch, total - 4) if point > max(resumed, 0)]
        others = [slot for slot in slots if slot is not best][-7:]
        runner.slots = [*others, Slot(full, total, [*thinned(kept), *new])]
        return resumed

    def room(self, generation):
        """The tokens that may be generated."""
        window, wanted = generation.num_ctx, generation.request.options.get("num_predict") or -1
        bound = wanted if 0 < wanted <= 10 * window else 10 * window
        return int(min(bound, window - generation.prompt_tokens))
