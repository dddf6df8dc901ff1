"""The wire under `ollama_server.py`: threads, framing, and connections that get lost."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler

from ollama_engine import go_json


class ClientGone(ConnectionError):
    """The client closed its side of the connection."""


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def __init__(self, handler):
        self.closing = False
        self.clients: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self):
        """Accept until the connection that `stop` makes; `serve_forever` would end later."""
        while True:
            with contextlib.suppress(OSError):
                client, address = self.get_request()
                if self.closing:
                    return client.close()
                self.process_request(client, address)

    def stop(self):
        if self.closing:
            return
        self.closing = True
        socket.create_connection(self.server_address).close()
        self.listener.join()
        self.server_close()
        for client in [*self.clients]:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def process_request(self, request, client_address):
        self.clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.clients.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """A lost connection is no news; the handler keeps every other error."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with the faults that a client may meet."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format, *args):
        pass

    def _write(self, line, poll=True):
        data = line + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if poll:
            self._pause(0.0)

    def _send(self, status, body):
        kind = "application/json; charset=utf-8" if isinstance(body, dict) else "text/plain"
        data = go_json(body) if isinstance(body, dict) else body
        data = data.encode("utf-8") if isinstance(data, str) else data
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(data))})
        self.wfile.write(data)

    def _head(self, status, headers):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _pause(self, seconds):
        """Wait; ClientGone at once when the client hangs up or the server closes."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ClientGone

    def _drop(self, how):
        self.close_connection = True
        if how == "reset":
            self._pause(0.05)  # a reset may overtake what was written
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.rfile.close()
            self.connection.close()
