"""Requests and answers, as the routes see them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .faults import Faults
    from .listener import Exchange


@dataclass(frozen=True)
class Part:
    """Bytes `begin` to `end` of a file, or of `data`."""

    begin: int
    end: int
    where: str = ""
    data: bytes = b""

    def read(self) -> bytes:
        if not self.where:
            return self.data[self.begin : self.end]
        with open(self.where, "rb") as file:  # noqa: PTH123 - the path is text, and this is the quick way
            return os.pread(file.fileno(), self.end - self.begin, self.begin)


@dataclass(frozen=True)
class Body:
    """What an answer carries: parts, one after another."""

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls((Part(0, len(data), data=data),))

    def __len__(self) -> int:
        return sum(part.end - part.begin for part in self.parts)

    def cut(self, begin: int, end: int) -> Body:
        """The bytes from `begin` up to `end`."""
        found: list[Part] = []
        at = 0
        for part in self.parts:
            first, last = max(begin - at, 0), min(end - at, part.end - part.begin)
            if first < last:
                found.append(replace(part, begin=part.begin + first, end=part.begin + last))
            at += part.end - part.begin
        return Body(tuple(found))

    def flipped(self, at: int) -> Body:
        """The same with one bit changed."""
        (part,) = self.cut(at, at + 1).parts
        wrong = bytes([part.read()[0] ^ 1])
        return Body((*self.cut(0, at).parts, *Body.of(wrong).parts, *self.cut(at + 1, len(self)).parts))


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)


class Refused(Exception):
    """An answer that ends the work on a request."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        said = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}
        self.reply = as_json({"error": message}, status, **said)


class Gone(Exception):
    """The connection is to be closed, without an answer or in the middle of one."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """An answer in JSON."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(status, {**kind, **headers}, Body.of(json.dumps(value).encode()))


def ranged(call: Call, body: Body, headers: dict[str, str]) -> Reply:
    """A file, or the range of it that was asked for."""
    headers = {"Accept-Ranges": "bytes", **headers}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range") or "")
    if call.faults.one("whole") is not None or not asked or asked[0] == "bytes=-":
        return Reply(200, headers, body)
    size = len(body)
    if not asked[1]:
        begin, end = max(size - int(asked[2]), 0), size
    else:
        begin, end = int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size
    for fault in call.faults.of("wrong_range"):
        begin, end = begin + fault.get("begin", 0), min(end + fault.get("end", 0), size)
    if not 0 <= begin < end:
        return Reply(416, {"Content-Range": f"bytes */{size}"})
    return Reply(206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}, body.cut(begin, end))


class Call:
    """A request on its way to an answer."""

    def __init__(self, handler: Exchange, faults: Faults) -> None:
        self.role = handler.server.role
        self.method: str = handler.command
        self.world = handler.server.world
        self.headers = handler.headers
        self.raw, _, query = handler.path.partition("?")
        self.path = unquote(self.raw)
        self.query = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        self.faults = faults
        self.received = 0
        self._chunks = handler.incoming()

    def chunks(self) -> Iterator[bytes]:
        """The request's body, piece by piece."""
        fault = self.faults.one("cut")
        most = fault["at"] if fault and fault.get("of") == "request" else None
        for chunk in self._chunks:
            self.received += len(chunk)
            if most is not None and self.received > most:
                raise Gone(reset=bool(fault and fault.get("reset")))
            yield chunk

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        return json.loads(self.read())
