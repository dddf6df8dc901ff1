"""A real HTTP server in the test process that speaks Ollama's API and plays scripted replies.

    with OllamaServer(cache="hybrid") as server:
        server.script(["<final>hello</final>", Reply("boom", status=500)])
        ...  # a client talks to server.url
        assert server.prompts[0].endswith("hello?") and server.reloads == 0

Fidelity is to Ollama 0.33; `Generation` says what the engine made of each request.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal

from http_wire import Handler, Server
from ollama_engine import (
    ApiError,
    Engine,
    Generation,
    Json,
    Model,
    Request,
    check_json,
    go_json,
    utf8_tokens,
)
from ollama_replies import Reply, blank, last_line, limited, parsed, pieces

__all__ = ["ApiError", "Generation", "Json", "Model", "OllamaServer", "Reply", "Request"]


ScriptItem = str | Reply | Callable[[str, Request], "str | Reply"]
EXHAUSTED = "<final>script exhausted</final>"


class OllamaServer(Engine):
    """Ollama on a free loopback port, until `close()` or the end of the `with` block.

    `models`: what is pulled; `loaded`: {name: num_ctx} of what is in memory at the start;
    `default_ctx`: the window where a request names none; `counter`: text -> tokens, monotone;
    `cache`: how a prompt shares with earlier ones; `parser`: swallow native tool calls as the
    qwen3.5 parser does; `honours_truncate=False`: an old server, which always cuts silently.
    An exception raised by a scripted callable is kept in `errors` and raised again on exit.
    """

    def __init__(
        self,
        models: Iterable[str | Model] = ("qwen3.5:4b",),
        *,
        loaded: Mapping[str, int] | None = None,
        default_ctx: int = 4096,
        counter: Callable[[str], int] = utf8_tokens,
        cache: Literal["attention", "hybrid", "none"] = "attention",
        chunk: int | Sequence[int] = 4,
        parser: bool = False,
        honours_truncate: bool = True,
        version: str = "0.33.0",
    ) -> None:
        super().__init__(models, loaded or {}, default_ctx, counter, cache, honours_truncate)
        self.chunk, self.parser, self.version = chunk, parser, version
        self.requests: list[Request] = []
        self.generations: list[Generation] = []
        self.refused: list[tuple[Request, str]] = []  # generations that got an error, and its text
        self.faults: dict[str, Reply] = {}  # path -> the plain reply of every request there
        self.errors: list[BaseException] = []
        self.exhausted = 0
        self._items: Iterator[ScriptItem] = iter(())
        self._then: ScriptItem | None = None
        self._changed = threading.Condition(threading.RLock())
        self._tcp = _Server(self)
        self.port = int(self._tcp.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OllamaServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if self.errors and error is None:
            raise self.errors[0]

    def close(self) -> None:
        """Stop listening and cut every connection, without waiting for clients."""
        self._tcp.stop()

    def script(self, items: Iterable[ScriptItem], then: ScriptItem | None = None) -> None:
        """Set the replies to come, in order; `then` answers whatever comes after them."""
        with self._changed:
            self._items, self._then = iter([*items]), then

    def wait_for(
        self, n_requests: int = 0, timeout: float = 10.0, *, cancelled: int = 0, ended: int = 0
    ) -> None:
        """Return when so many generations have come in, were cancelled, are over.

        AssertionError after `timeout` seconds.
        """

        def reached() -> bool:
            over = sum(generation.ended for generation in self.generations)
            came = len(self.generations) >= n_requests
            return came and self.cancelled >= cancelled and over >= ended

        with self._changed:
            if not self._changed.wait_for(reached, timeout):
                state = [(g.sent_chars, g.cancelled, g.ended) for g in self.generations]
                raise AssertionError(f"{timeout} s passed; (sent, cancelled, ended): {state}")

    @property
    def prompts(self) -> list[str]:
        return [generation.request.body["prompt"] for generation in self.generations]

    @property
    def sent_chars(self) -> list[int]:
        return [generation.sent_chars for generation in self.generations]

    @property
    def cancelled(self) -> int:
        return sum(generation.cancelled for generation in self.generations)

    def _answer(self, request: Request) -> Json | str:
        """The body for every path but /api/generate."""
        gets: dict[str, Json | str] = {
            "/api/version": {"version": self.version},
            "/": "Ollama is running",
        }
        gets |= {"/api/tags": self.tags(), "/api/ps": self.processes()}
        if request.path == "/api/show" and request.method == "POST":
            name = request.body.get("model") or request.body.get("name") or ""
            return self.find(name).show()
        if request.path not in (*gets, "/api/show", "/api/generate"):
            raise ApiError(404, "404 page not found")
        if request.path not in gets or request.method == "POST":
            raise ApiError(405, "405 method not allowed")
        return gets[request.path]

    def _start(self, request: Request) -> Generation | Json:
        with self._changed:
            try:
                started = self.admit(request)
            except ApiError as error:
                self.refused.append((request, str(error)))
                raise
            if isinstance(started, Generation):
                self.generations.append(started)
                self._changed.notify_all()
            return started

    def _end(self, generation: Generation, text: str, cancelled: bool = False) -> None:
        """Book the generation; before its last bytes go out, so that a client's next sees it."""
        with self._changed:
            if generation.slot.end and not generation.ended:
                generation.slot.text += text[: generation.sent_chars]
            generation.ended, generation.cancelled = True, cancelled
            self._changed.notify_all()

    def _next(self, generation: Generation) -> Reply:
        """The next scripted reply, its text as the server would let it through."""
        with self._changed:
            item = next(self._items, self._then)
            self.exhausted += item is None
        request = generation.request
        made = item(request.body["prompt"], request) if callable(item) else item
        made = EXHAUSTED if made is None else made
        reply = Reply(made) if isinstance(made, str) else made
        if reply.plain:
            return reply
        reply = limited(reply, generation, self)
        return parsed(reply) if self.parser and not request.body.get("raw") else reply


class _Server(Server):
    def __init__(self, owner: OllamaServer) -> None:
        self.owner = owner
        super().__init__(_Handler)


class _Handler(Handler):
    server: _Server

    def do_GET(self) -> None:
        self._serve(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _serve(self, raw: bytes) -> None:
        owner = self.server.owner
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = None
        known = body if isinstance(body, dict) else {}
        request = Request(self.command, self.path, dict(self.headers.items()), known, raw)
        owner.requests.append(request)
        try:
            if fault := owner.faults.get(self.path):
                self._pause(fault.delay_first + fault.hang)
                self._plain(fault)
            elif (self.command, self.path) == ("POST", "/api/generate"):
                check_json(raw, body)
                self._generate(request)
            else:
                self._send(200, owner._answer(request))
        except ApiError as error:
            page = str(error).startswith(str(error.status))  # Gin's own pages are plain text
            self._send(error.status, str(error) if page else {"error": str(error)})
        except OSError:
            self.close_connection = True

    def _generate(self, request: Request) -> None:
        owner = self.server.owner
        generation = owner._start(request)
        if not isinstance(generation, Generation):
            return self._send(200, generation)
        reply, gone = Reply(), False
        try:
            reply = owner._next(generation)
            self._play(generation, reply)
        except OSError:
            gone = not self.server.closing
            raise
        except BaseException as error:
            owner.errors.append(error)
            raise ApiError(500, f"the script failed: {error!r}") from error
        finally:
            owner._end(generation, reply.text, gone)

    def _play(self, generation: Generation, reply: Reply) -> None:
        self._pause(reply.delay_first + (reply.hang if reply.hang_after is None else 0.0))
        owner = self.server.owner
        final = last_line(reply, generation, owner)
        if reply.plain:
            owner._end(generation, "")
            return self._plain(reply)
        if generation.request.body.get("stream") is False:
            generation.sent_chars = len(reply.text)
            owner._end(generation, reply.text)
            thought = {"thinking": reply.thinking} if reply.thinking else {}
            return self._send(200, final | {"response": reply.text} | thought, reply.headers)
        self._start(reply)
        if self._text(generation, reply):
            owner._end(generation, reply.text)
            self._finish(reply, final)

    def _text(self, generation: Generation, reply: Reply) -> bool:
        """Stream thinking and text; False when the reply drops the connection."""
        line, sizes = blank(generation.request), reply.chunk or self.server.owner.chunk
        for piece in pieces(reply.thinking, sizes, ()):
            self._write(go_json(line | {"thinking": piece}), reply.delay_between)
        hang_at, drop_at = (
            None if mark is None else min(mark, len(reply.text))
            for mark in (reply.hang_after, reply.drop_after)
        )
        for piece in itertools.chain(pieces(reply.text, sizes, (hang_at, drop_at)), [""]):
            if generation.sent_chars == hang_at:
                self._pause(reply.hang)
            if generation.sent_chars == drop_at:
                self._drop(reply.drop)
                return False
            if piece:
                self._write(go_json(line | {"response": piece}), reply.delay_between)
                generation.sent_chars += len(piece)
        return True

    def _finish(self, reply: Reply, final: Json) -> None:
        if reply.garbage_line is not None:
            self._write(reply.garbage_line.encode("utf-8"))
        if reply.error_line is not None:
            self._write(go_json({"error": reply.error_line}))
        elif not reply.no_done:
            self._write(go_json(final), poll=False)
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _start(self, reply: Reply) -> None:
        self.chunked = reply.content_length is None
        self.close_connection = self.close_connection or not self.chunked
        framing = "Transfer-Encoding" if self.chunked else "Content-Length"
        value = "chunked" if self.chunked else str(reply.content_length)
        kind = {"Content-Type": "application/x-ndjson", framing: value}
        self._head(200, kind | dict(reply.headers))

    def _plain(self, reply: Reply) -> None:
        status = reply.status or (302 if reply.redirect else 200)
        body = reply.body if reply.body is not None else {"error": reply.text}
        location = {"Location": reply.redirect} if reply.redirect else {}
        self._send(status, body, location | dict(reply.headers), reply.content_length)
