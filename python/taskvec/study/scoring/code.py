"""Scores answers that are programs: takes the program from the answer and runs it in the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..spec.asked import NO_CONSENT
from .sandbox import Program, Sandbox, Verdict

if TYPE_CHECKING:
    from ...records import Json

METRIC = "pass@1"


class Judge:
    """Judges the programs of one run, in a sandbox that is opened for the first of them."""

    def __init__(self, *, allowed: bool) -> None:
        """Opens no sandbox yet; `allowed` is the user's consent."""
        self.allowed = allowed
        self.verdicts: dict[str, Verdict] = {}
        """The verdicts of the cell that is being scored, by the `task_id` of the document."""
        self.described: str | None = None
        """What the sandbox consists of; None until it has been opened."""
        self._sandbox: Sandbox | None = None

    def open(self) -> None:
        """Opens the sandbox, which tests itself first.

        Raises:
            UsageError: the user has not allowed it, or this system cannot sandbox code.
        """
        if not self.allowed:
            raise UsageError(NO_CONSENT)
        self.probe()

    def probe(self) -> None:
        """Opens the sandbox without the user's consent; this runs no code of a model.

        Raises:
            UsageError: this system cannot sandbox code.
        """
        if self._sandbox is None:
            self._sandbox = Sandbox.open()
            self.described = self._sandbox.described

    def results(self, document: Any, answers: list[Any]) -> Json:
        """lm-eval's `process_results`: whether the program passes the document's tests."""
        self.open()
        sandbox = self._sandbox
        assert sandbox is not None
        program = Program(document["prompt"], answers[0], document["test"], document["entry_point"])
        verdict = sandbox.judge(program)
        self.verdicts[document["task_id"]] = verdict
        return {METRIC: float(verdict.passed)}


def judged(judge: Judge) -> Json:
    """The settings of a task whose programs are scored by `judge`."""
    return {
        # lm-eval itself runs no code, so its own consent is not needed.
        "unsafe_code": False,
        "process_results": judge.results,
        "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [{
            "name": "create_test",
            "filter": [{"function": "custom", "filter_fn": completions}, {"function": "take_first"}],
        }],
    }  # fmt: skip


def completions(answers: list[list[str]], documents: list[Any]) -> list[list[str]]:
    """The programs in the answers: the text up to the closing fence; it continues the prompt's function."""
    return [[one.partition("```")[0] for one in some] for some in answers]
