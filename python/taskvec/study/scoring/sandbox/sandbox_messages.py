"""Messages between the judge and the worker: plain data as JSON, over pipes.

Only values of built-in types are sent. Any other value arrives as a `Stranger`, which equals nothing, so that
the judge never calls a method that the program defines. This file uses only the standard library, because
`confined.py` imports it in a bare interpreter.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Json = Any
"""A value that `json` reads and writes."""

# Smaller integers are sent as JSON numbers. Larger ones are sent in hexadecimal, which Python converts in
# linear time and without its limit on decimal digits.
_LARGEST = 1 << 63


class Lost(BaseException):
    """The other side gave no usable answer; `str()` says why.

    It does not derive from `Exception`, so that a test that expects an exception does not catch this one.
    """


class Unsendable(TypeError):
    """A value that must be plain data is not; `str()` names its type."""


class Stranger:
    """Stands for a received value that was not plain data; it equals only itself."""

    def __init__(self, name: str) -> None:
        """Takes the name of the type that the value had."""
        self.name = name

    def __repr__(self) -> str:
        """The name of the type in angle brackets."""
        return f"<{self.name}>"


class Channel:
    """Sends and receives messages, one line each, over a pair of pipes."""

    def __init__(self, inbox: int, outbox: int) -> None:
        """Takes the file descriptors to read from and to write to."""
        self.inbox, self.outbox, self.read = inbox, outbox, bytearray()

    def send(self, message: Json) -> None:
        """Writes a message.

        Raises:
            Lost: the other side has closed the pipe.
        """
        left = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while left:
                left = left[os.write(self.outbox, left) :]
        except OSError:
            raise Lost("ended early") from None

    def receive(self, cap: int | None = None, until: float | None = None) -> dict[str, Any]:
        """Waits for a message.

        Args:
            cap: the most bytes that it may have; None for no limit.
            until: the time of `time.monotonic` at which to stop waiting; None for no limit.

        Raises:
            Lost: the other side has closed the pipe, or sent something malformed or too long.
            TimeoutError: the time `until` has passed.
        """
        searched = 0
        while (end := self.read.find(b"\n", searched)) < 0:
            searched = len(self.read)
            if cap is not None and searched > cap:
                raise Lost(f"an answer over {cap >> 20} MiB")
            if until is not None and not self._ready(until - time.monotonic()):
                raise TimeoutError
            piece = os.read(self.inbox, 1 << 16)
            if not piece:
                raise Lost("ended early")
            self.read += piece
        line = bytes(self.read[:end])
        del self.read[: end + 1]
        try:
            message: Json = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Lost("an answer that cannot be read")
        return message  # pyright: ignore[reportUnknownVariableType]

    def _ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.inbox, select.POLLIN)
        return seconds > 0 and bool(poll.poll(seconds * 1000))


def encode(value: Any, *, strict: bool = False) -> Json:
    """Encodes a value as JSON, from which `decode` makes a copy.

    A value of a subclass is sent as its built-in type: a `Counter` as a `dict`, a `numpy.float64` as a
    `float`, a named tuple as a `tuple`. Python considers these equal. numpy's numbers become Python's.

    Args:
        value: any value.
        strict: whether to raise an error for a value that is not plain data, instead of sending a `Stranger`.

    Raises:
        Unsendable: `strict` is set, and the value contains something that is not plain data.
        RecursionError: the value is nested too deeply, or contains itself.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__add__(value, 0)
        return number if -_LARGEST < number < _LARGEST else {"int": hex(number)}
    if isinstance(value, float):
        return float.__pos__(value)
    # Calls the methods of the built-in types, since the program may override those of a subclass.
    for kind, name in _SEQUENCES:
        if isinstance(value, kind):
            items = [encode(one, strict=strict) for one in kind.__iter__(value)]
            return items if name is None else {name: items}
    if isinstance(value, dict):
        pairs: Any = dict.items(value)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return {"dict": [[encode(key, strict=strict), encode(one, strict=strict)] for key, one in pairs]}
    return _rare(value, strict)


_SEQUENCES: tuple[tuple[Any, str | None], ...] = (
    (list, None), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset")
)  # fmt: skip


def _rare(value: Any, strict: bool) -> Json:
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [encode(one) for one in (value.start, value.stop, value.step)]}
    # If a module has not been imported, the value cannot be of one of its types.
    if (fractions := sys.modules.get("fractions")) and isinstance(value, fractions.Fraction):
        return {"fraction": [encode(value.numerator), encode(value.denominator)]}
    if (decimals := sys.modules.get("decimal")) and isinstance(value, decimals.Decimal):
        return {"decimal": str(value)}
    if (numpy := sys.modules.get("numpy")) and isinstance(value, numpy.number | numpy.bool_):
        plain = value.item()
        if isinstance(plain, bool | int | float | complex):
            return encode(plain)
    if strict and not isinstance(value, Stranger):
        raise Unsendable(type(value).__name__)
    return {"other": str(type(value).__name__)[:100]}


def decode(sent: Json) -> Any:
    """Decodes a value that `encode` wrote.

    Raises:
        Exception: of any type, if the input is not from `encode`; the other side may be hostile.
    """
    if isinstance(sent, list):
        return _all(sent)
    if not isinstance(sent, dict):
        return sent
    items: Any = sent.items()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    ((name, content),) = items
    return _DECODERS[name](content) if name in _DECODERS else Stranger(str(content))


def _all(items: Json) -> list[Any]:
    return [decode(one) for one in items]


def _fraction(parts: Json) -> Any:
    from fractions import Fraction

    return Fraction(*_all(parts))


def _decimal(digits: Json) -> Any:
    from decimal import Decimal

    return Decimal(digits)


_DECODERS: dict[str, Callable[[Json], Any]] = {
    "int": lambda digits: int(digits, 16),
    "tuple": lambda items: tuple(_all(items)),
    "set": lambda items: set(_all(items)),
    "frozenset": lambda items: frozenset(_all(items)),
    "dict": lambda pairs: {decode(key): decode(value) for key, value in pairs},
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*_all(parts)),
    "fraction": _fraction,
    "decimal": _decimal,
}


def mirror(before: Any, after: Any) -> None:
    """Applies the program's changes to its copy of an argument to the argument of the tests.

    Lists, dictionaries, sets and byte arrays, also inside a tuple, are changed in place, as they would be if
    all ran in one process.
    """
    kind = before.__class__
    if kind is not after.__class__:
        return
    if kind is tuple:
        for mine, other in zip(before, after, strict=False):
            mirror(mine, other)
    elif kind in (list, bytearray):
        before[:] = after
    elif kind in (dict, set):
        before.clear()
        before.update(after)
