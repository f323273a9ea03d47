"""HTTP/1.1 as both listeners speak it: every request is logged, faults are applied."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
import traceback
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .wire import Body, Call, Gone, Part, Refused, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .faults import Faults
    from .world import World

_CHUNK = 1 << 20
_AT_ONCE = struct.pack("ii", 1, 0)


class Listener(ThreadingHTTPServer):
    """One of the two addresses: `role` is "hub" or "cdn"."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, role: str, world: World, answer: Callable[[Call], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.role, self.world, self.answer = role, world, answer
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def shutdown_request(self, request: Any) -> None:
        """A reset must come without the polite goodbye that ends other connections."""
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_AT_ONCE)) == _AT_ONCE:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to print about; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    connection: socket.socket

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the log is the world's."""

    def do_GET(self) -> None:
        if self.path.startswith("/control/"):
            self._send(self.server.world.control(self.command, self.path, b"".join(self.incoming())), {})
            return
        plain = unquote(self.path.partition("?")[0])
        faults = self.server.world.rules.met(self.server.role, self.command, plain)
        call = Call(self, faults)
        entry = self._logged(call)
        try:
            reply = self._answer(call)
            # Before the client can know that it is answered, so that it finds these in the log.
            entry["status"], entry["received"] = reply.status, call.received
            self._send(reply, entry, faults)
        except Gone as gone:
            self._close(reset=gone.reset)
        finally:
            entry["received"] = call.received
            entry["ended"] = time.monotonic()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _logged(self, call: Call) -> dict[str, Any]:
        host, _, port = (self.headers.get("Host") or "").rpartition(":")
        entry: dict[str, Any] = {
            "role": call.role,
            "host": host,
            "port": int(port or 0),
            "method": call.method,
            "path": call.path,
            "query": "?" in self.path,
            "authorization": self.headers.get("Authorization"),
            "range": self.headers.get("Range"),
            "user_agent": self.headers.get("User-Agent"),
            "status": None,
            "sent": 0,
            "received": 0,
            "begun": time.monotonic(),
            "ended": None,
        }
        self.server.world.log.append(entry)
        return entry

    def _answer(self, call: Call) -> Reply:
        faults = call.faults
        for fault in faults.of("latency"):
            time.sleep(fault["ms"] / 1000)
        if (fault := faults.one("drop")) is not None:
            raise Gone(reset=bool(fault.get("reset")))
        try:
            if (fault := faults.one("status")) is not None:
                code, message = fault["code"], fault.get("message") or HTTPStatus(fault["code"]).phrase
                raise Refused(code, message, fault.get("error_code"), **fault.get("headers", {}))
            if faults.one("expired") is not None:
                raise Refused(403, "Request has expired")
            reply = self.server.answer(call)
        except Refused as refused:
            reply = refused.reply
        except (OSError, Gone):
            raise
        except Exception:
            # A fault of this server's own must fail a test at once; what clients do not retry says so.
            traceback.print_exc()
            reply = Refused(501, "the tests' Hub failed").reply
        # What was sent along has to be taken off the connection, used or not.
        for _ in call.chunks():
            pass
        for fault in faults.of("move"):
            self.server.world.store.repos[fault["repo"]].branches[fault["revision"]] = fault["to"]
        return reply

    def incoming(self) -> Iterator[bytes]:
        """The body of the request, with a length or in chunks."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.rfile.read(min(size, _CHUNK))
            if not chunk:
                raise Gone(reset=False)
            size -= len(chunk)
            yield chunk

    def _send(self, reply: Reply, entry: dict[str, Any], faults: Faults | None = None) -> None:
        headers, body = dict(reply.headers), reply.body
        for fault in faults.of("short") if faults else ():
            body = body.cut(0, max(len(body) - fault["by"], 0))
        for fault in faults.of("flip") if faults else ():
            at = fault.get("at", len(body) // 2)
            body = body.flipped(at) if at < len(body) else body
        headers["Content-Length"] = str(len(body))
        for fault in faults.of("headers") if faults else ():
            headers |= fault["headers"]
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        lines += [f"Date: {self.date_time_string()}", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        if self.command == "HEAD" or not len(body):
            self.connection.sendall(head)
        else:
            # Sent with the first of the body, not in a packet of its own.
            self.connection.sendall(head, getattr(socket, "MSG_MORE", 0))
            self._send_body(body, entry, faults)

    def _send_body(self, body: Body, entry: dict[str, Any], faults: Faults | None) -> None:
        stops: list[tuple[int, str, dict[str, Any]]] = []
        for kind in ("cut", "stall"):
            for fault in faults.of(kind) if faults else ():
                if fault.get("of") != "request" and fault.get("at", 0) < len(body):
                    stops.append((fault.get("at", 0), kind, fault))
        slow = faults.one("bandwidth") if faults else None
        at = 0
        for stop, kind, fault in sorted(stops, key=lambda one: one[0]):
            self._send_parts(body.cut(at, stop), entry, slow)
            at = stop
            if kind == "cut":
                raise Gone(reset=bool(fault.get("reset")))
            time.sleep(fault["seconds"])
        self._send_parts(body.cut(at, len(body)), entry, slow)

    def _send_parts(self, body: Body, entry: dict[str, Any], slow: dict[str, Any] | None) -> None:
        begun, done = time.monotonic(), 0
        step = max(min(slow["rate"] // 50, _CHUNK), 1) if slow else len(body) or 1
        for first in range(0, len(body), step):
            for part in body.cut(first, first + step).parts:
                self._send_part(part, entry)
            if slow:
                done += step
                time.sleep(max(begun + done / slow["rate"] - time.monotonic(), 0))

    def _send_part(self, part: Part, entry: dict[str, Any]) -> None:
        at = part.begin
        # Counted first, for the same reason, and corrected where the client went away.
        entry["sent"] = entry.get("sent", 0) + part.end - at
        try:
            if not part.where:
                self.connection.sendall(part.read())
                at = part.end
                return
            with open(part.where, "rb") as file:  # noqa: PTH123
                while at < part.end:
                    sent = os.sendfile(self.connection.fileno(), file.fileno(), at, part.end - at)
                    if not sent:
                        raise Gone(reset=False)
                    at += sent
        finally:
            entry["sent"] -= part.end - at

    def _close(self, *, reset: bool) -> None:
        self.close_connection = True
        with suppress(OSError):
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
