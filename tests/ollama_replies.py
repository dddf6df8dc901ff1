"""What a scripted model writes, and what Ollama makes of it before it reaches the client."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ollama_engine import Engine, Generation, Json, Request, longest, now


def call(name: str, /, **args: Any) -> str:
    return f"<tool>{json.dumps({'name': name, 'args': args})}</tool>"


def write(path: str, content: str = "x\n") -> str:
    return call("write_file", path=path, content=content)


def shell(command: str, **args: Any) -> str:
    return call("run_shell", command=command, **args)


def python(code: str, **args: Any) -> str:
    """A call that runs this Python code, without double quotes in it."""
    return shell(f'"{sys.executable}" -c "{code}"', **{"timeout": 60, **args})


@dataclass(frozen=True)
class Reply:
    """One scripted answer. With `status`, `body` or `redirect` it is a plain HTTP response."""

    text: str = ""  # what the model writes; with a status and no body: the text of {"error": ...}
    done_reason: str = "stop"
    chunk: int | Sequence[int] = 0  # characters per line, cycled; 0 = as the server says
    delay_first: float = 0.0  # seconds of silence before the headers
    delay_between: float = 0.0  # seconds after each line
    hang: float = 0.0  # seconds of silence, before the headers or ...
    hang_after: int | None = None  # ... after that many characters of text
    thinking: str = ""  # sent before the text, in the field of that name
    tool_calls: list[Json] | None = None  # stands in the final line
    garbage_line: str | None = None  # sent after the text, as it is
    error_line: str | None = None  # sent after the text as {"error": ...}; the stream ends
    no_done: bool = False  # the stream ends well-formed, but without its final line
    drop_after: int | None = None  # the connection is lost after that many characters
    drop: Literal["reset", "close"] = "reset"
    limited: bool = True  # False: neither num_predict nor num_ctx cuts the text
    eval_count: int | None = None
    prompt_eval_count: int | None = None
    status: int = 0
    body: str | bytes | Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_length: int | None = None  # overrides the true one; a stream is then not chunked
    redirect: str = ""  # Location; the status is 302 unless given

    @property
    def plain(self) -> bool:
        return bool(self.status or self.redirect or self.body is not None)


def limited(reply: Reply, generation: Generation, engine: Engine) -> Reply:
    """The reply cut at a stop string or where the tokens run out, its tokens counted."""
    text, reason, room = reply.text, reply.done_reason, engine.room(generation)
    for stop in generation.request.options.get("stop") or []:
        text = text.partition(stop)[0]
    if reply.limited and engine.counter(text) > room:
        text = text[: longest(len(text), lambda n: engine.counter(text[:n]) <= room)]
        reason = "length"
    written = max(1, engine.counter(reply.thinking + text))
    written = written if reply.eval_count is None else reply.eval_count
    return replace(reply, text=text, done_reason=reason, eval_count=written)


def parsed(reply: Reply) -> Reply:
    """The reply after Ollama's qwen3.5 output parser; an error before any text is a 500."""
    text, error = qwen_parser(reply.text)
    if error and not text:
        return replace(reply, text=error, status=500)
    return replace(reply, text=text, error_line=error or reply.error_line)


def qwen_parser(text: str) -> tuple[str, str]:
    """What Ollama's qwen3.5 output parser lets through, and its error text or ""."""
    visible, tag = "", "<tool_call>"
    while tag in text:
        before, _, text = text.partition(tag)
        visible += before.rstrip()
        call, closed, text = text.partition("</tool_call>")
        if not closed:
            return visible, ""
        if not re.fullmatch(r"\s*<function=[^>]+>.*</function>\s*", call, re.DOTALL):
            known = "expected element type <function> but have <parameter>"
            return visible, known if "<parameter" in call else "EOF"
        text = text.lstrip()
    visible += text.rstrip()
    cut = next((n for n in range(len(tag), 0, -1) if visible.endswith(tag[:n])), 0)
    return visible[: len(visible) - cut], ""


def last_line(reply: Reply, generation: Generation, engine: Engine) -> Json:
    """The last line of a stream; its `response` is empty."""
    counted, written = generation.prompt_tokens, reply.eval_count or 0
    final = blank(generation.request) | {"done": True, "done_reason": reply.done_reason}
    if not generation.request.body.get("raw"):
        final["context"] = [151644] * (counted + written)
    if reply.tool_calls:
        final["tool_calls"] = reply.tool_calls
    if reply.prompt_eval_count is not None:
        counted = reply.prompt_eval_count
    return final | engine.numbers(generation, counted, written)


def blank(request: Request) -> Json:
    """A stream line without text."""
    name = request.body["model"]
    return {"model": name, "created_at": now(), "response": "", "done": False}


def pieces(text: str, sizes: int | Sequence[int], marks: Iterable[int | None]) -> Iterator[str]:
    """The text in pieces of the given sizes, cycled, with a cut at each mark."""
    at, cycle = 0, itertools.cycle([sizes] if isinstance(sizes, int) else sizes)
    cuts = [mark for mark in marks if mark]
    while at < len(text):
        end = min([at + max(1, next(cycle)), *(cut for cut in cuts if cut > at)])
        yield text[at:end]
        at = end
