"""Code that a model wrote is judged in a sandbox, or not at all.

    sandbox = Sandbox.open()
    verdict = sandbox.judge(Program(prompt, completion, test, entry_point))

Each program gets two fresh processes, started here, that confine themselves: a judge with the tests and a
worker with the program (`confined.py`). The walls and what each one stops: docs/code-execution.md.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import Any

from ....errors import MismatchError, UsageError
from . import sandbox_probes, sandbox_walls
from .sandbox_messages import Channel, Lost
from .sandbox_process import Pipes, Room, Side, find_bubblewrap

CPU_SECONDS = 5
"""Processor time of a program, by default."""
WALL_SECONDS = 60.0
"""Time by the clock of a judgement, by default: for programs that sleep."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be judged: the data set's prompt, test and name of the function, and what the model wrote.

    The program is `prompt + completion`. `test` defines `check`, which takes the function.
    """

    prompt: str
    completion: str
    test: str
    entry_point: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a program passes its tests, and why not.

    `reason` is "passed", "empty", "wrong answer", "time limit", or one line that says what happened.
    """

    passed: bool
    reason: str


class Sandbox:
    """Judges programs, one at a time or from several threads; there is nothing to close."""

    def __init__(self, room: Room, wall_seconds: float, described: str) -> None:
        """Takes what `open` has found; use that."""
        self._room = room
        self._wall_seconds = wall_seconds
        self.described = described
        """The walls in one line, for a report."""

    @classmethod
    def open(cls, *, cpu_seconds: int = CPU_SECONDS, wall_seconds: float = WALL_SECONDS) -> Sandbox:
        """Finds out which walls can be had here, and runs the probes behind them.

        Args:
            cpu_seconds: processor time of a program, user and system, start of the interpreter included.
            wall_seconds: time by the clock of a whole judgement.

        Raises:
            UsageError: confinement is not to be had here, or a probe was not contained.
        """
        try:
            sandbox_walls.check_platform()
            abi = sandbox_walls.landlock_abi()
        except sandbox_walls.Unavailable as error:
            raise _refusal(str(error)) from None
        room = Room.of_this_interpreter(cpu_seconds)
        path, said = find_bubblewrap(room)
        walls = f"Landlock ABI {abi}, seccomp"
        described = f"{walls}, bubblewrap" if path else f"{walls}; no second wall: {said}"
        opened = cls(replace(room, bubblewrap=path), wall_seconds, described)
        opened._probe()
        return opened

    def judge(self, program: Program) -> Verdict:
        """Runs a program's tests against it.

        Raises:
            UsageError: a process could not be confined; the program was not run.
            MismatchError: the tests themselves cannot be run.
        """
        if not program.completion.strip():
            return Verdict(False, "empty")
        job = {
            "prompt": program.prompt,
            "completion": program.completion,
            "test": program.test,
            "entry_point": program.entry_point,
        }
        said = self._run(job)
        if "refused" in said:
            raise _refusal(said["refused"])
        if "unusable" in said:
            raise MismatchError(
                f"the tests of {program.entry_point} cannot be run in the sandbox ({said['unusable']});"
                " install what they import, or leave the benchmark out"
            )
        return Verdict(said["passed"] is True, str(said["reason"]))

    def _run(self, job: dict[str, str]) -> dict[str, Any]:
        """What the judge says, or what is said of one that says nothing."""
        until = time.monotonic() + self._wall_seconds
        pipes, sides = Pipes(), list[Side]()
        try:
            jobs, verdicts, calls, answers = (pipes.pipe() for _ in range(4))
            channels = [(jobs[0], verdicts[1]), (answers[0], calls[1])]
            sides.append(judge := Side(self._room, "judge", channels))
            sides.append(worker := Side(self._room, "worker", [(calls[0], answers[1])]))
            # From here on a side that ends is seen by the other one, and by this process.
            pipes.close(jobs[0], verdicts[1], *calls, *answers)
            channel = Channel(verdicts[0], jobs[1])
            try:
                said = channel.receive(until=until)
            except (Lost, TimeoutError):
                return {"refused": "the interpreter did not start"}
            if "refused" in said:
                return said
            said = self._verdict(channel, job, until, judge, worker)
            # They end by themselves now; what is around them sees it, and cleans up.
            for side in sides:
                side.returned()
            return said
        except OSError as error:
            return {"refused": f"a process cannot be started ({error.strerror})"}
        finally:
            for side in sides:
                side.end()
            pipes.close()

    def _verdict(
        self, channel: Channel, job: dict[str, str], until: float, judge: Side, worker: Side
    ) -> dict[str, Any]:
        try:
            channel.send(job)
            said = channel.receive(until=until)
        except TimeoutError:
            return {"passed": False, "reason": f"time limit ({self._wall_seconds:g} s by the clock)"}
        except Lost:
            return {"passed": False, "reason": self._ended(judge, "the tests ended early")}
        if said.get("lost"):
            said["reason"] = self._ended(worker, said["reason"])
        return said

    def _ended(self, side: Side, otherwise: str) -> str:
        """Why a side that stopped answering did so."""
        code = side.returned() or 0
        number = -code if code < 0 else code - 128
        # Nobody has killed it yet but the kernel, for its processor time.
        if number == signal.SIGKILL:
            return "time limit"
        known = {one.value: one.name for one in signal.Signals}
        return f"{otherwise} ({known[number]})" if number in known else otherwise

    def _probe(self) -> None:
        """Raises UsageError unless an honest program passes and each probe is refused."""
        honest = self.judge(Program("", sandbox_probes.HONEST, sandbox_probes.HONEST_TEST, "probe"))
        if not honest.passed:
            raise _refusal(f"not even an honest program passes ({honest.reason}) behind {self.described}")
        for attempt, source in sandbox_probes.PROBES.items():
            found = self.judge(Program("", source, sandbox_probes.REFUSED_TEST, "probe"))
            if not found.passed:
                raise _refusal(f"a probe that tries to {attempt} was not contained ({found.reason})")


def _refusal(why: str) -> UsageError:
    return UsageError(
        f"code that a model wrote is not run here: {why}; use Linux 5.13 or newer on x86_64 with Landlock and"
        " seccomp, or leave the benchmark out"
    )
