"""How the server can be told to misbehave, rule by rule."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

KINDS = {
    "status": "answers `code` with `headers`, `error_code` (X-Error-Code) and `message`",
    "drop": "closes the connection instead of answering; `reset` sends a TCP reset",
    "cut": "the same after `at` bytes of the answer's body, or with `of='request'` of the upload",
    "whole": "answers 200 and the whole file where a range was asked for",
    "wrong_range": "answers 206 for the asked range with `begin` and `end` added to its ends",
    "short": "sends `by` bytes less and says so in Content-Length, not in Content-Range",
    "flip": "sends the byte `at` of the answer's body with its lowest bit flipped",
    "headers": "changes `headers` of the answer, by name; None takes one away",
    "wrong_size": "lists files matching `file` with `by` bytes more, in tree, info and X-Linked-Size",
    "expired": "answers as a CDN does to a signature that has expired",
    "stall": "stops for `seconds` after `at` bytes of the answer's body",
    "latency": "waits `ms` milliseconds before answering",
    "bandwidth": "sends a body at `rate` bytes a second",
    "move": "moves the branch `revision` of `repo` to the commit `to`, just before it answers",
}


@dataclass
class Rule:
    """One misbehaviour: which requests it meets, and when."""

    kind: str
    role: str | None
    method: str | None
    path: str
    times: int | None
    after: int
    details: dict[str, Any]
    seen: int = 0

    def meets(self, role: str, method: str, path: str) -> bool:
        """Counts a request that it matches; True where it is to misbehave."""
        if (self.role or role) != role or (self.method or method) != method or not re.search(self.path, path):
            return False
        self.seen += 1
        nth = self.seen - self.after
        return nth > 0 and (self.times is None or nth <= self.times)


@dataclass
class Rules:
    """All rules in force."""

    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def met(self, role: str, method: str, path: str) -> Faults:
        with self._lock:
            return Faults([(one.kind, one.details) for one in self._rules if one.meets(role, method, path)])


@dataclass
class Faults:
    """What is to go wrong with one request."""

    found: list[tuple[str, dict[str, Any]]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [details for name, details in self.found if name == kind]

    def one(self, kind: str) -> dict[str, Any] | None:
        return next(iter(self.of(kind)), None)

    def listed(self, path: str, size: int) -> int:
        """The size that the server states for a file."""
        return size + sum(one["by"] for one in self.of("wrong_size") if re.search(one.get("file", ""), path))
