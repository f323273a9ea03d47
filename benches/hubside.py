"""The tests' own Hub under a benchmark: what a command asked of it, and what it kept of the answers."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import oracle
from measure import Run, run

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from hubserver import Hub, Request
from hubserver.huge import write_huge

__all__ = ["ALPHA", "Bench", "Hub", "Measured", "measured", "misbehave", "taskvec", "write_huge"]

ALPHA = "0.7"
DONORS = ("grpo", "sft")


@dataclass(frozen=True)
class Measured:
    """One run of a command that meets the Hub. Memory and lengths in bytes."""

    run: Run
    requests: dict[str, int]
    """How many of each kind."""
    moved: int
    """Sent by the Hub, headers of HTTP apart."""
    weights: int
    """The part of it that comes from `.safetensors` files."""
    kept: int
    """In HF_HOME, the user's cache and the temporary folder afterwards, all of which were empty before."""

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        taken = {name: value for name, value in vars(self.run).items() if name != "printed"}
        return taken | {name: value for name, value in vars(self).items() if name != "run"}


def misbehave(hub: Hub, latency: int, rate: int) -> None:
    """Every request waits `latency` milliseconds; a connection has `rate` bytes a second, 0 for no limit."""
    hub.behave()
    if latency:
        hub.misbehave("latency", ms=latency)
    if rate:
        hub.misbehave("bandwidth", rate=rate)


def measured(
    hub: Hub, command: Sequence[str | Path], home: Path, cgroup: machine.MemoryCgroup | None = None
) -> Measured:
    """Runs a command whose caches are empty; what it put into `home` is there until the next one."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "tmp").mkdir(parents=True)
    os.sync()
    hub.clear_log()
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = hub.env(home / "hf", XDG_CACHE_HOME=str(home / "cache"), TMPDIR=str(home / "tmp"), **quiet)
    result = run(command, cgroup, env)
    asked = hub.requests()
    kept = sum(path.stat().st_size for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    weights = sum(one.sent for one in asked if one.path.endswith(".safetensors"))
    kinds = Counter(_kind(one) for one in asked)
    return Measured(result, dict(sorted(kinds.items())), sum(one.sent for one in asked), weights, kept)


def _kind(request: Request) -> str:
    if request.role == "cdn":
        return "ranges" if request.range else "whole files"
    if request.path.startswith("/api/"):
        return "lists"
    return "addresses" if request.path.endswith(".safetensors") else "small files"


@dataclass
class Bench:
    """A family whose donors are on the Hub."""

    hub: Hub
    family: dict[str, Path]
    work: Path

    def __post_init__(self) -> None:
        """Publishes the donors from where they lie."""
        for role in DONORS:
            self.hub.publish(f"bench/{role}", self.family[role])

    @property
    def shards(self) -> list[tuple[str, Path]]:
        """The donors' weights, each with its repository."""
        return [
            (f"bench/{role}", path)
            for role in DONORS
            for path in sorted(self.family[role].glob("*.safetensors"))
        ]

    @property
    def needed(self) -> int:
        """Bytes of the donors' weights."""
        return sum(path.stat().st_size for _, path in self.shards)

    def once(self, command: Sequence[str], cgroup: machine.MemoryCgroup | None = None) -> Measured:
        """One run from the same starting point: no output, nothing cached but what the Hub serves."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        machine.warm_cache(path for folder in self.family.values() for path in folder.glob("*.safetensors"))
        return measured(self.hub, command, self.work / "home", cgroup)

    def check_first(self) -> None:
        """Streams once, compares the output with numpy, and keeps it for comparison."""
        self._stream()
        folders = [self.family[role] for role in ("instruct", *DONORS)]
        if wrong := oracle.differing(self.work / "out", *folders, alpha=float(ALPHA)):
            raise SystemExit(f"taskvec's output differs from numpy's in {wrong} values")
        shutil.rmtree(self.work / "checked", ignore_errors=True)
        (self.work / "out").rename(self.work / "checked")

    def stream(self, *options: str, cgroup: machine.MemoryCgroup | None = None) -> Measured:
        """A measured transfer that streams; its output and what it left behind are checked afterwards."""
        result = self._stream(*options, cgroup=cgroup)
        oracle.require_equal_files(self.work / "out", self.work / "checked")
        smallest = min(path.stat().st_size for _, path in self.shards)
        if result.kept > smallest // 10 or list((self.work / "home").rglob("*.safetensors")):
            raise SystemExit(f"a streaming transfer left {result.kept} bytes in {self.work / 'home'}")
        return result

    def _stream(self, *options: str, cgroup: machine.MemoryCgroup | None = None) -> Measured:
        words = [*taskvec("transfer"), str(self.family["instruct"]), *(f"bench/{role}" for role in DONORS)]
        words += ["-o", str(self.work / "out"), "--alpha", ALPHA, "--stream", "--quiet", *options]
        return self.once(words, cgroup)

    def download(self, way: str) -> Measured:
        """The donors' weights, downloaded and checked."""
        program = str(Path(__file__).with_name("downloads.py"))
        files = [f"{repo}:{path.name}" for repo, path in self.shards]
        result = self.once([sys.executable, program, way, *files])
        if int(result.run.printed) != self.needed:
            raise SystemExit(f"{way}: {result.run.printed.strip()} bytes came, not {self.needed}")
        if way == "huggingface_hub":
            for repo, path in self.shards:
                cached = (
                    self.work / "home" / "hf" / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots"
                )
                oracle.require_equal_file(next(cached.glob(f"*/{path.name}")), path)
        return result


def taskvec(*words: str) -> list[str]:
    """The command under measurement."""
    return [sys.executable, "-m", "taskvec", *words]
