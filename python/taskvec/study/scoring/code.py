"""Benchmarks whose answers are programs: what of an answer is the program, and its verdict in the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..spec.asked import NO_CONSENT
from .sandbox import Program, Sandbox, Verdict

if TYPE_CHECKING:
    from ...records import Json

METRIC = "pass@1"


class Judge:
    """Judges the programs of one run; the sandbox is opened when the first comes."""

    def __init__(self, *, allowed: bool) -> None:
        """Opens nothing yet; `allowed` is the user's consent."""
        self.allowed = allowed
        self.verdicts: dict[str, Verdict] = {}
        """By the document's own name for its problem, of the cell that is being scored."""
        self.described: str | None = None
        """What the sandbox consists of, once it has been opened."""
        self._sandbox: Sandbox | None = None

    def open(self) -> None:
        """Opens the sandbox, which tries itself first.

        Raises:
            UsageError: code may not run, or cannot be confined here.
        """
        if not self.allowed:
            raise UsageError(NO_CONSENT)
        self.probe()

    def probe(self) -> None:
        """The same without consent: nothing of a model's is run.

        Raises:
            UsageError: code cannot be confined here.
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
    """The settings of a task whose programs the judge sees."""
    return {
        # lm-eval itself runs nothing, so its own consent is not asked for.
        "unsafe_code": False,
        "process_results": judge.results,
        "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [{
            "name": "create_test",
            "filter": [{"function": "custom", "filter_fn": completions}, {"function": "take_first"}],
        }],
    }  # fmt: skip


def completions(answers: list[list[str]], documents: list[Any]) -> list[list[str]]:
    """What goes on with the function that the prompt began: the answer up to the fence that closes it."""
    return [[one.partition("```")[0] for one in some] for some in answers]
