"""A real HTTP server in the test process that speaks Ollama's API and plays scripted replies.

    with OllamaServer(cache="hybrid") as server:
        server.script(["<final>hello</final>", Reply("boom", status=500)])
        ...  # a client talks to server.url
        assert server.prompts[0].endswith("hello?") and server.reloads == 0

Fidelity is to Ollama 0.33, as far as the program sees it. `Generation` says what the engine made
of each request.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator

from http_wire import Handler, Server
from ollama_engine import ApiError, Engine, Generation, Json, Model, Request, go_json, utf8_tokens
from ollama_replies import Reply, blank, last_line, limited, pieces

__all__ = ["ApiError", "Generation", "Json", "Model", "OllamaServer", "Reply", "Request"]


ScriptItem = str | Reply | Callable[[str, Request], "str | Reply"]
EXHAUSTED = "<final>script exhausted</final>"


class OllamaServer(Engine):
    """Ollama on a free loopback port, until `close()` or the end of the `with` block.

    `models`: what is pulled; `counter`: text -> tokens, monotone; `cache`: how a prompt shares with
    earlier ones: attention, hybrid or none. An exception raised by a scripted callable is kept in
    `errors` and raised again on exit.
    """

    def __init__(self, models=("qwen3.5:4b",), *, counter=utf8_tokens, cache="attention", chunk=4):
        super().__init__(models, counter, cache)
        self.chunk = chunk
        self.requests: list[Request] = []
        self.generations: list[Generation] = []
        self.refused: list[tuple[Request, str]] = []  # generations that got an error, and its text
        self.errors: list[BaseException] = []
        self._items: Iterator[ScriptItem] = iter(())
        self._then: ScriptItem | None = None
        self._lock = threading.RLock()
        self._tcp = _Server(self)
        self.port = int(self._tcp.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        self.close()
        if self.errors and error is None:
            raise self.errors[0]

    def close(self):
        """Stop listening and cut every connection, without waiting for clients."""
        self._tcp.stop()

    def script(self, items, then=None):
        """Set the replies to come, in order; `then` answers whatever comes after them."""
        with self._lock:
            self._items, self._then = iter([*items]), then

    @property
    def prompts(self):
        return [generation.request.body["prompt"] for generation in self.generations]

    def _start(self, request):
        with self._lock:
            try:
                started = self.admit(request)
            except ApiError as error:
                self.refused.append((request, str(error)))
                raise
            self.generations.append(started)
            return started

    def _end(self, generation, text):
        """Book the generation; before its last bytes go out, so that a client's next sees it."""
        with self._lock:
            if not generation.ended:
                generation.slot.text += text[: generation.sent_chars]
            generation.ended = True

    def _next(self, generation):
        """The next scripted reply, its text as the server would let it through."""
        with self._lock:
            item = next(self._items, self._then)
        request = generation.request
        made = item(request.body["prompt"], request) if callable(item) else item
        reply = made if isinstance(made, Reply) else Reply(made or EXHAUSTED)
        return reply if reply.plain else limited(reply, generation, self)


class _Server(Server):
    def __init__(self, owner):
        self.owner = owner
        super().__init__(_Handler)


class _Handler(Handler):
    server: _Server

    def do_POST(self):
        owner, length = self.server.owner, int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.path, dict(self.headers.items()), json.loads(self.rfile.read(length))
        )
        owner.requests.append(request)
        try:
            if self.path == "/api/generate":
                self._generate(request)
            elif self.path == "/api/show":
                self._send(200, owner.find(request.body["model"]).show())
            else:
                raise ApiError(404, "404 page not found")
        except ApiError as error:
            self._send(error.status, {"error": str(error)})
        except OSError:
            self.close_connection = True

    def _generate(self, request):
        owner = self.server.owner
        generation = owner._start(request)
        reply = Reply()
        try:
            reply = owner._next(generation)
            self._play(generation, reply)
        except OSError:
            raise
        except BaseException as error:
            owner.errors.append(error)
            raise ApiError(500, f"the script failed: {error!r}") from error
        finally:
            owner._end(generation, reply.text)

    def _play(self, generation, reply):
        self._pause(reply.hang if reply.hang_after is None else 0.0)
        owner = self.server.owner
        final = last_line(reply, generation)
        if reply.plain:
            owner._end(generation, "")
            return self._plain(reply)
        self._begin()
        if self._text(generation, reply):
            owner._end(generation, reply.text)
            self._finish(reply, final)

    def _text(self, generation, reply):
        """Stream thinking and text; False when the reply drops the connection."""
        line, sizes = blank(generation.request), reply.chunk or self.server.owner.chunk
        for piece in pieces(reply.thinking, sizes, ()):
            self._write(go_json(line | {"thinking": piece}))
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
                self._write(go_json(line | {"response": piece}))
                generation.sent_chars += len(piece)
        return True

    def _finish(self, reply, final):
        if reply.garbage_line is not None:
            self._write(reply.garbage_line.encode("utf-8"))
        if reply.error_line is not None:
            self._write(go_json({"error": reply.error_line}))
        elif not reply.no_done:
            self._write(go_json(final), poll=False)
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self):
        self._head(200, {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"})

    def _plain(self, reply):
        body = reply.body if reply.body is not None else {"error": reply.text}
        self._send(reply.status or 200, body)
