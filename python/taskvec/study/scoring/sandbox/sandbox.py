"""Runs code that a model wrote in a sandbox, and says whether it passes its tests.

    sandbox = Sandbox.open()
    verdict = sandbox.judge(Program(prompt, completion, test, entry_point))

For each program, this process starts two new processes, which confine themselves before they run anything: a
judge with the tests and a worker with the program (`confined.py`). docs/code-execution.md describes the walls
of the sandbox and what each one stops. If a wall is not available, no code is run.
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
"""Default limit for the processor time of a program, in seconds."""
WALL_SECONDS = 60.0
"""Default limit for the wall time of a judgement, in seconds; it stops programs that sleep."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to judge: `prompt + completion`, where the model wrote the completion.

    `test` is code that defines `check`, which is called with the function named `entry_point`.
    """

    prompt: str
    completion: str
    test: str
    entry_point: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a program passes its tests, and the reason.

    `reason` is "passed", "empty", "wrong answer", "time limit", or a line that says what happened.
    """

    passed: bool
    reason: str


class Sandbox:
    """Judges programs; threads may share it, and it need not be closed."""

    def __init__(self, room: Room, wall_seconds: float, described: str) -> None:
        """Use `open` instead, which finds these arguments."""
        self._room = room
        self._wall_seconds = wall_seconds
        self.described = described
        """The walls of the sandbox in one line, for a report."""

    @classmethod
    def open(cls, *, cpu_seconds: int = CPU_SECONDS, wall_seconds: float = WALL_SECONDS) -> Sandbox:
        """Finds the walls that are available on this system, and tests them with probe programs.

        Args:
            cpu_seconds: processor time of a program (user and system), including the interpreter's start.
            wall_seconds: wall time of a whole judgement.

        Raises:
            UsageError: this system cannot sandbox code, or a probe was not stopped.
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
            UsageError: a process could not be confined, so the program was not run.
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
                " install what they import, or remove the benchmark from the study"
            )
        return Verdict(said["passed"] is True, str(said["reason"]))

    def _run(self, job: dict[str, str]) -> dict[str, Any]:
        """The judge's message, or one that says what happened if the judge sends none."""
        until = time.monotonic() + self._wall_seconds
        pipes, sides = Pipes(), list[Side]()
        try:
            jobs, verdicts, calls, answers = (pipes.pipe() for _ in range(4))
            channels = [(jobs[0], verdicts[1]), (answers[0], calls[1])]
            sides.append(judge := Side(self._room, "judge", channels))
            sides.append(worker := Side(self._room, "worker", [(calls[0], answers[1])]))
            # With these ends closed here, each side and this process notice when another side ends.
            pipes.close(jobs[0], verdicts[1], *calls, *answers)
            channel = Channel(verdicts[0], jobs[1])
            try:
                said = channel.receive(until=until)
            except (Lost, TimeoutError):
                return {"refused": "the interpreter did not start"}
            if "refused" in said:
                return said
            said = self._verdict(channel, job, until, judge, worker)
            # Both sides end by themselves now; waiting gives bubblewrap around them time to clean up.
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
        """The reason why a side stopped answering; `otherwise` if its exit status does not tell."""
        code = side.returned() or 0
        number = -code if code < 0 else code - 128
        # This process has not killed it yet, so the kernel has, for its processor time.
        if number == signal.SIGKILL:
            return "time limit"
        known = {one.value: one.name for one in signal.Signals}
        return f"{otherwise} ({known[number]})" if number in known else otherwise

    def _probe(self) -> None:
        """Raises `UsageError` unless an honest program passes and every probe is stopped."""
        honest = self.judge(Program("", sandbox_probes.HONEST, sandbox_probes.HONEST_TEST, "probe"))
        if not honest.passed:
            raise _refusal(f"even an honest program fails ({honest.reason}) behind {self.described}")
        for attempt, source in sandbox_probes.PROBES.items():
            found = self.judge(Program("", source, sandbox_probes.REFUSED_TEST, "probe"))
            if not found.passed:
                raise _refusal(f"a probe that tries to {attempt} was not stopped ({found.reason})")


def _refusal(why: str) -> UsageError:
    return UsageError(
        f"code that a model wrote is not run here: {why}; use Linux 5.13 or newer on x86_64 with Landlock and"
        " seccomp, or remove the benchmark from the study"
    )
