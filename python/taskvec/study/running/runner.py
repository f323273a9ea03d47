"""Runs a study from beginning to end; scores every cell once, and continues an interrupted run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from ... import verbs
from ...algebra import randomize
from ...errors import MismatchError
from ...inputs.refs import local
from ...live.inject import unlike
from ...vector import Vector
from ..environment import library, quiet
from ..rundir.answers import Answers
from ..rundir.run_folder import RunFolder, read_run
from ..scoring.loading import load_model, make_room, norms
from ..scoring.score import score
from .batch_size import set_batch_size
from .time_left import TimeLeft

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    from ..rundir.results import Results
    from ..scoring.tasks import Loaded
    from ..spec.arms import Arm
    from .preflight import Ready

    Progress = Callable[[str, str, int, int, float | None], None]
    """Called after each batch: arm, benchmark, documents done, documents in total, and the estimated seconds
    left, which are None as long as nothing has been measured."""


def run(
    ready: Ready,
    out: str | os.PathLike[str],
    *,
    overwrite: bool,
    progress: Progress | None,
) -> Results:
    """Runs a study that has been checked, in the folder `out`; see `taskvec.study.run`."""
    from ..reporting import page

    folder = RunFolder(out)
    with folder.lock():
        folder.begin(ready.run, ready.text, overwrite=overwrite)
        Runner(ready, folder, progress).go()
        return page.rebuild(folder.path)[0]


class Runner:
    """Scores the cells of a run that are not finished."""

    def __init__(self, ready: Ready, folder: RunFolder, progress: Progress | None) -> None:
        """Counts what is finished; scores nothing yet."""
        self._ready, self._folder, self._progress = ready, folder, progress
        cells = ready.cells()
        self._all = sum(loaded.n for _, loaded in cells)
        self._done = {
            (arm.id, loaded.benchmark.id): loaded.n for arm, loaded in cells if self._is_there(arm, loaded)
        }
        """Documents done, by cell."""
        self._time = TimeLeft(loaded for arm, loaded in cells if not self._is_there(arm, loaded))

    def go(self) -> None:
        """Scores all cells that are not finished."""
        todo = [(arm, missing) for arm in self._ready.arms if (missing := self._missing(arm))]
        if not todo:
            return
        vector = self._vector()
        if self._ready.study.backend != "hf":
            from .worker import score_apart, zero_changes_nothing

            zero_changes_nothing(self._ready, self._folder, vector)
            for arm, missing in todo:
                source = self._source(arm, vector)
                score_apart(self._ready, self._folder, arm, missing, source, self._tell, self._report)
                for loaded in missing:
                    self._report(arm, loaded, loaded.n)
            return
        self._on_target([one for one in todo if one[0].kind != "donor"], vector)
        for arm, missing in todo:
            if arm.kind == "donor":
                self._on_donor(arm, missing)

    def _missing(self, arm: Arm) -> list[Loaded]:
        return [
            loaded for one, loaded in self._ready.cells() if one == arm and not self._is_there(arm, loaded)
        ]

    def _is_there(self, arm: Arm, loaded: Loaded) -> bool:
        return self._folder.samples(arm, loaded.benchmark).is_file()

    def _tell(self, arm: str, what: str) -> None:
        if self._progress is not None:
            self._progress(arm, what, sum(self._done.values()), self._all, self._time.seconds())

    def _report(self, arm: Arm, loaded: Loaded, done: int) -> None:
        """Reports how many documents of a cell are done."""
        self._done[arm.id, loaded.benchmark.id] = done
        self._time.report(arm.id, loaded.benchmark.id, done)
        self._tell(arm.label, loaded.benchmark.name)

    def _vector(self) -> Vector:
        """The study's v; extracted if the run does not have it yet."""
        if self._ready.study.donors is None:
            return Vector(self._ready.donors[0].path)
        if not local(self._folder.vector).is_vector:
            self._tell("v", "extracting")
            minuend, subtrahend = self._ready.donors
            verbs.extract(minuend.path, subtrahend.path, self._folder.vector)
        return Vector(self._folder.vector)

    def _source(self, arm: Arm, vector: Vector) -> Vector | None:
        """The vector that an arm adds to the target; None for the baseline and the donors."""
        if arm.kind in ("baseline", "donor"):
            return None
        if arm.kind != "random":
            return vector
        where = self._folder.control(arm)
        if not local(where).is_vector:
            self._tell(arm.label, "drawing")
            randomize(vector, where, seed=arm.seed or 0)
        return Vector(where)

    def _on_target(self, todo: list[tuple[Arm, list[Loaded]]], vector: Vector) -> None:
        if not todo:
            return
        target = self._ready.target
        self._tell(target.name, "loading")
        model = self._load(target.path)
        lm = self._asked_by(model)
        _must_be(model, target.path, "it was loaded")
        self._folder.note(target_norms=norms(model))
        with vector.applied(model, 0.0, target=target.path):
            _must_be(model, target.path, "α = 0 was applied")
        for arm, missing in todo:
            with self._applied(arm, self._source(arm, vector), model):
                self._score(arm, missing, lm)
        _must_be(model, target.path, "the last arm was removed")

    @contextmanager
    def _applied(self, arm: Arm, vector: Vector | None, model: Any) -> Generator[None]:
        """Puts the arm's weights into the loaded model for the length of the block."""
        ready = self._ready
        start = time.perf_counter()
        with (
            nullcontext(None)
            if vector is None
            else vector.applied(
                model, arm.alpha or 0.0, target=ready.target.path, rounding=ready.study.rounding
            )
        ) as applied:
            self._folder.write_arm(
                arm,
                {
                    "effect": None if applied is None else _plain(applied.effect),
                    "tensors": None if applied is None else _plain(applied.tensors),
                    "seconds": time.perf_counter() - start,
                },
            )
            yield

    def _on_donor(self, arm: Arm, missing: list[Loaded]) -> None:
        """Scores a donor, with the target's tokenizer, chat template and generation config."""
        start = time.perf_counter()
        make_room()
        self._tell(arm.label, "loading")
        path = self._ready.donors[0 if arm.id == "minuend" else 1].path
        lm = self._asked_by(self._load(path))
        self._folder.write_arm(arm, {"effect": None, "tensors": None, "seconds": time.perf_counter() - start})
        self._score(arm, missing, lm)

    def _load(self, path: str) -> Any:
        return load_model(path, self._ready.target.path, self._ready.device, self._ready.dtype)

    def _asked_by(self, model: Any) -> Any:
        # Imported here: lm-eval's models take seconds to import.
        from ..scoring.study_lm import StudyLM

        with quiet():
            return StudyLM(model, self._ready.tokenizer)

    def _score(self, arm: Arm, missing: list[Loaded], lm: Any) -> None:
        line = self._ready.study.think if arm.prompt == "think" else None
        for loaded in missing:
            self._tell(arm.label, loaded.benchmark.name)
            set_batch_size(lm, loaded, self._ready.study, self._folder)

            def tell(done: int, _: int, loaded: Loaded = loaded) -> None:
                self._report(arm, loaded, done)

            with Answers(self._folder.answers(arm, loaded.benchmark)) as lm.answers:
                rows = score(lm, loaded, line=line, progress=tell)
            self._folder.write_samples(arm, loaded.benchmark, rows)
            self._note_memory()

    def _note_memory(self) -> None:
        """Records the peak memory on the GPU, over all runs in this folder."""
        torch = library("torch")
        if torch.cuda.is_available() and self._ready.device != "cpu":
            before = read_run(self._folder.path).get("device_memory", 0)
            peak = torch.cuda.max_memory_allocated(self._ready.device)
            self._folder.note(device_memory=max(before, peak))


def _must_be(model: Any, target: str, after: str) -> None:
    if names := unlike(model, target):
        raise MismatchError(
            f"{target}: {len(names)} tensors in the model differ from its files after {after}, the first of"
            f" them {names[0]}; this is a bug in taskvec or in the model's class, please report it"
        )


def _plain(value: Any) -> Any:
    """Converts dataclasses, tuples and mappings to plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value
