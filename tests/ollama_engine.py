"""What Ollama's engine makes of a request: windows, token counts, reloads, the prefix cache.

A simulation without a model, after Ollama 0.33 and llama.cpp; `ollama_server.py` puts it on HTTP.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
LEAD, TRAIL = 3, 9  # tokens that qwen3.5's template puts before and after the prompt
INTS = "num_ctx num_batch num_gpu num_thread main_gpu num_keep num_predict draft_num_predict"
FLOATS = "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty"
RUNNER_OPTIONS = "num_batch num_gpu num_thread main_gpu use_mmap draft_num_predict"
OPTION_TYPES = {
    **dict.fromkeys(f"{INTS} seed top_k repeat_last_n".split(), "integer"),
    **dict.fromkeys(FLOATS.split(), "float32"),
    "use_mmap": "boolean",
    "stop": "array",
}
BODY_TYPES = {
    **dict.fromkeys(["model", "prompt", "system", "template", "suffix"], (str, "string")),
    **dict.fromkeys(["stream", "raw", "truncate", "shift"], (bool, "bool")),
    "options": (dict, "map[string]interface {}"),
}


@dataclass(frozen=True)
class Model:
    """A model that has been pulled; a `remote_host` makes it a cloud stub."""

    name: str
    context_length: int = 262144
    architecture: str = "qwen35"
    capabilities: tuple[str, ...] = ("completion", "vision", "tools", "thinking")
    format: str = "gguf"
    size: int = 3_389_000_000
    remote_host: str = ""

    def entry(self) -> Json:
        """The part that /api/tags and /api/ps have in common."""
        details: Json = {"parent_model": "", "format": self.format, "family": self.architecture}
        details |= {"families": [self.architecture], "parameter_size": "4.7B"}
        details |= {"quantization_level": "Q4_K_M", "context_length": self.context_length}
        entry: Json = {
            "name": self.name,
            "model": self.name,
            "size": self.size,
            "digest": "2a" * 32,
        }
        return entry | {"details": details | {"embedding_length": 2560}}

    def show(self) -> Json:
        arch = self.architecture
        info = {"general.architecture": arch, f"{arch}.context_length": self.context_length}
        modelfile = "TEMPLATE {{ .Prompt }}\nRENDERER qwen3.5\nPARSER qwen3.5\n"
        shown: Json = {
            "modelfile": f"# Modelfile\nFROM {self.name}\n{modelfile}",
            "model_info": info,
        }
        shown |= {"parameters": "temperature 1\npresence_penalty 1.5", "template": "{{ .Prompt }}"}
        return shown | {"details": self.entry()["details"], "capabilities": [*self.capabilities]}


@dataclass(frozen=True)
class Request:
    """A request as it came; `body` is {} where it was no JSON object."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json
    raw: bytes = b""

    @property
    def options(self) -> Json:
        return self.body.get("options") or {}


@dataclass
class Generation:
    """What the engine made of one /api/generate with a prompt."""

    request: Request
    prompt_tokens: int  # of the whole rendered prompt, after a cut
    processed: int  # the part of them that was not in the cache
    num_ctx: int
    truncated: bool
    loaded_now: bool
    slot: Slot
    sent_chars: int = 0  # characters of `response` written to the client
    cancelled: bool = False  # the client left before the end
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

    model: Model
    num_ctx: int
    key: tuple[Any, ...]
    slots: list[Slot] = field(default_factory=list)  # the live one last, the others in host RAM


class ApiError(Exception):
    """Becomes a response with this status and {"error": text}."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def utf8_tokens(text: str) -> int:
    """The default token counter: 3.6 bytes of UTF-8 to a token, rounded up."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 3.6)


def go_json(value: object) -> bytes:
    """JSON as Go's json.Marshal writes it: compact, UTF-8, with < > & escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escaped = re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return escaped.encode("utf-8", "replace")


def common_prefix(left: str, right: str) -> int:
    """The number of characters that both begin with."""
    return longest(min(len(left), len(right)), lambda n: left[:n] == right[:n])


def longest(high: int, fits: Callable[[int], bool]) -> int:
    """The largest n in 0..high with fits(n), for a condition that once broken stays so."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def check_json(raw: bytes, body: object) -> None:
    """Raise ApiError when a request body is not a JSON object."""
    if not raw:
        raise ApiError(400, "missing request body")
    if body is None:
        raise ApiError(400, f"invalid character '{chr(raw[0])}' looking for beginning of value")
    if not isinstance(body, dict):
        raise ApiError(400, "json: cannot unmarshal into Go value of type api.GenerateRequest")


def check_body(body: Json) -> None:
    """Raise ApiError as Ollama does for values of a wrong type."""
    for key, (kind, name) in BODY_TYPES.items():
        if body.get(key) is not None and not isinstance(body[key], kind):
            what = {str: "string", bool: "bool", dict: "object", list: "array"}
            found, into = what.get(type(body[key]), "number"), f"GenerateRequest.{key}"
            raise ApiError(
                400, f"json: cannot unmarshal {found} into Go struct field {into} of type {name}"
            )
    for key, value in (body.get("options") or {}).items():
        wanted = OPTION_TYPES.get(key)
        kinds = {"boolean": bool, "array": list}.get(wanted or "", (int, float))
        wrong_bool = isinstance(value, bool) and wanted != "boolean"
        if wanted and value is not None and (wrong_bool or not isinstance(value, kinds)):
            raise ApiError(500, f'option "{key}" must be of type {wanted}')
    think = body.get("think")
    if isinstance(think, str) and think not in ("low", "medium", "high", "max"):
        words = '"high", "medium", "low", "max", true, or false'
        raise ApiError(400, f'invalid think value: "{think}" (must be {words})')
    if body.get("raw") and any(body.get(key) for key in ("system", "template", "context")):
        raise ApiError(400, "raw mode does not support template, system, or context")


def thinned(points: Sequence[int]) -> list[int]:
    """Checkpoints of older requests that survive: each 8192 tokens from the one before it."""
    kept: list[int] = []
    for point in sorted(points):
        if not kept or point - kept[-1] >= 8192:
            kept.append(point)
    return kept[-30:]


def overflow(tokens: int, window: int) -> str:
    """llama-server's JSON refusal, which Ollama passes on as a string."""
    size = f"request ({tokens} tokens) exceeds the available context size ({window} tokens)"
    error = {"code": 400, "message": f"{size}, try increasing it"}
    error |= {"type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": window}
    return json.dumps({"error": error})


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime())


class Engine:
    """The models that are pulled and loaded, and what each prompt costs."""

    def __init__(
        self,
        models: Iterable[str | Model],
        loaded: Mapping[str, int],
        default_ctx: int,
        counter: Callable[[str], int],
        cache: Literal["attention", "hybrid", "none"],
        honours_truncate: bool,
    ) -> None:
        found = [Model(model) if isinstance(model, str) else model for model in models]
        self.models = {model.name: model for model in found}
        self.default_ctx, self.counter, self.cache = default_ctx, counter, cache
        self.honours_truncate = honours_truncate
        self.read_ns, self.write_ns = 2_000_000, 50_000_000  # reported per token, never slept
        self.runners: dict[str, Runner] = {}
        self.loads = self.reloads = 0
        for name, num_ctx in loaded.items():
            self._load(self.find(name), {"num_ctx": num_ctx}, True)
        self.loads = self.reloads = 0  # starts of a runner; those caused by changed options

    def find(self, name: str) -> Model:
        """The model of that name, or ApiError 404 in Ollama's words."""
        model = self.models.get(name) or self.models.get(f"{name}:latest")
        if model is None:
            raise ApiError(404, f"model '{name}' not found")
        return model

    def prompt_tokens(self, prompt: str, raw: bool = False) -> int:
        """The uncut `prompt_eval_count` of a prompt, template included."""
        return self.counter(prompt) if raw else LEAD + self.counter(prompt.strip()) + TRAIL

    def tags(self) -> Json:
        return {"models": [self._tag(model) for model in self.models.values()]}

    def _tag(self, model: Model) -> Json:
        entry = model.entry() | {"modified_at": now(), "capabilities": [*model.capabilities]}
        remote = {"remote_host": model.remote_host, "remote_model": model.name}
        return entry | remote if model.remote_host else entry

    def processes(self) -> Json:
        """The answer of /api/ps."""
        common = {"size_vram": 0, "expires_at": now()}
        rows = [(runner.model.entry(), runner.num_ctx) for runner in self.runners.values()]
        return {"models": [entry | common | {"context_length": ctx} for entry, ctx in rows]}

    def admit(self, request: Request) -> Generation | Json:
        """Load what the request needs and place its prompt; a load without prompt is answered."""
        body = request.body
        check_body(body)
        model = self.find(body.get("model") or "")
        if body.get("think") and "thinking" not in model.capabilities:
            raise ApiError(400, f'"{body["model"]}" does not support thinking')
        done = {"model": body["model"], "created_at": now(), "response": "", "done": True}
        if not body.get("prompt") and body.get("keep_alive") == 0:
            self.runners.pop(model.name, None)
            return done | {"done_reason": "unload"}
        runner, fresh = self._load(model, request.options, body.get("shift") is not False)
        if not body.get("prompt"):
            return done | {"done_reason": "load"}
        return self._place(request, runner, fresh)

    def _load(self, model: Model, options: Json, shift: bool) -> tuple[Runner, bool]:
        """The runner for these options, and whether it had to be started."""
        num_ctx = options.get("num_ctx") and max(4, min(options["num_ctx"], model.context_length))
        key = (num_ctx, shift, *(options.get(name) for name in RUNNER_OPTIONS.split()))
        old = self.runners.get(model.name)
        if old and old.key == key:
            return old, False
        window = int(num_ctx or min(self.default_ctx, model.context_length))
        self.loads += 1
        self.reloads += old is not None
        self.runners[model.name] = Runner(model, window, key)
        return self.runners[model.name], True

    def _place(self, request: Request, runner: Runner, fresh: bool) -> Generation:
        raw = bool(request.body.get("raw"))
        text = request.body.get("system") or ""
        text = request.body["prompt"] if raw else (text + request.body["prompt"]).strip()
        total, window = self.prompt_tokens(text, raw), runner.num_ctx
        truncated = total >= window
        if truncated and request.body.get("truncate") is False and self.honours_truncate:
            raise ApiError(400, overflow(total, window))
        if truncated:
            runner.slots.append(Slot("", 0, []))
            total = processed = window // 2 + 2
        else:
            reused = self._reuse(runner, text, total, raw, request.options.get("num_batch") or 512)
            processed = max(1, total - reused)
        slot = runner.slots[-1]
        return Generation(request, total, processed, window, truncated, fresh, slot)

    def _reuse(self, runner: Runner, text: str, total: int, raw: bool, batch: int) -> int:
        """How many tokens of the prompt are cached; makes its slot the live one."""
        full = text if raw else text + "\0"  # \0 stands for the closing tokens of the template

        def shared(slot: Slot) -> int:
            same = common_prefix(slot.text, full)
            return total if same >= len(full) else (not raw) * LEAD + self.counter(full[:same])

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

    def room(self, generation: Generation) -> int:
        """The tokens that may be generated."""
        window, wanted = generation.num_ctx, generation.request.options.get("num_predict") or -1
        bound = wanted if 0 < wanted <= 10 * window else 10 * window
        return int(min(bound, window - generation.prompt_tokens))

    def numbers(self, generation: Generation, counted: int, written: int) -> Json:
        """The metrics of a final line; zeros are left out."""
        load = 2_000_000_000 if generation.loaded_now else 40_000_000
        read, write = generation.processed * self.read_ns, written * self.write_ns
        numbers = {"total_duration": load + read + write, "load_duration": load}
        numbers |= {"prompt_eval_count": counted, "prompt_eval_duration": read}
        numbers |= {"eval_count": written, "eval_duration": write}
        return {key: value for key, value in numbers.items() if value}
