"""What a scripted model writes, and what Ollama makes of it before it reaches the client."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ollama_engine import Json, longest, now


def call(name, /, **args):
    elements = "".join(f"<{key}>{value}</{key}>\n" for key, value in args.items())
    return f'<tool name="{name}">\n{elements}</tool>'


def write(path, content="x\n"):
    """A listing: the form in which files are written."""
    return f"{path}\n`````\n{content}`````"


def shell(command):
    return f'<tool name="run_shell">{command}</tool>'


@dataclass(frozen=True)
class Reply:
    """One scripted answer. With `status` or `body` it is a plain HTTP response."""

    text: str = ""  # what the model writes; with a status and no body: the text of {"error": ...}
    done_reason: str = "stop"
    chunk: int | Sequence[int] = 0  # characters per line, cycled; 0 = as the server says
    hang: float = 0.0  # seconds of silence, before the headers or ...
    hang_after: int | None = None  # ... after that many characters of text
    thinking: str = ""  # sent before the text, in the field of that name
    garbage_line: str | None = None  # sent after the text, as it is
    error_line: str | None = None  # sent after the text as {"error": ...}; the stream ends
    no_done: bool = False  # the stream ends well-formed, but without its final line
    drop_after: int | None = None  # the connection is lost after that many characters
    drop: Literal["reset", "close"] = "reset"
    eval_count: int = 0
    status: int = 0
    body: str | bytes | Json | None = None

    @property
    def plain(self):
        return bool(self.status or self.body is not None)


def limited(reply, generation, engine):
    """The reply cut at a stop string or where the tokens run out, its tokens counted."""
    text, reason, room = reply.text, reply.done_reason, engine.room(generation)
    for stop in generation.request.options.get("stop") or []:
        text = text.partition(stop)[0]
    if engine.counter(text) > room:
        text = text[: longest(len(text), lambda n: engine.counter(text[:n]) <= room)]
        reason = "length"
    written = reply.eval_count or max(1, engine.counter(reply.thinking + text))
    return replace(reply, text=text, done_reason=reason, eval_count=written)


def last_line(reply, generation):
    """The last line of a stream; its `response` is empty."""
    counts = {"prompt_eval_count": generation.prompt_tokens, "eval_count": reply.eval_count}
    done = {"done": True, "done_reason": reply.done_reason}
    return blank(generation.request) | done | counts


def blank(request):
    """A stream line without text."""
    name = request.body["model"]
    return {"model": name, "created_at": now(), "response": "", "done": False}


def pieces(text, sizes, marks):
    """The text in pieces of the given sizes, cycled, with a cut at each mark."""
    at, cycle = 0, itertools.cycle([sizes] if isinstance(sizes, int) else sizes)
    cuts = [mark for mark in marks if mark]
    while at < len(text):
        end = min([at + max(1, next(cycle)), *(cut for cut in cuts if cut > at)])
        yield text[at:end]
        at = end
