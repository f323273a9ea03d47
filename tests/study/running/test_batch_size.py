"""`batch_size: auto`: found by trial, written down, and the same ever after."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import chat
from taskvec.errors import MismatchError
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.rundir.run_folder import RunFolder
from taskvec.study.running import batch_size
from taskvec.study.running.batch_size import largest, set_batch_size
from taskvec.study.scoring import tasks
from taskvec.study.scoring.study_lm import StudyLM

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    chat.write_family(folder)
    chat.write_tasks(folder / "tasks", count=COUNT)
    chat.write_study(folder / "study.yaml", chat.study(folder, folder / "tasks"))
    return folder


@pytest.fixture
def auto(root: Path) -> Any:
    return load(root / "study.yaml").model_copy(update={"batch_size": "auto"})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = {"schema": "taskvec/run/1", "identity": {}}
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "run.json").write_text(json.dumps(run))
    return RunFolder(tmp_path / "RUN")


class Small:
    """A device that holds so many tokens and no more; it is told that it is a GPU."""

    def __init__(self, lm: Any, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[tuple[int, int]] = []
        self.shares: list[float] = []

        def limited(rows: int, length: int) -> None:
            self.tried.append((rows, length))
            if rows * length > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

        def generate(input_ids: Any, max_length: int, min_new_tokens: int, **_: Any) -> Any:
            assert max_length == input_ids.shape[1] + min_new_tokens
            limited(len(input_ids), max_length)

        def weigh(prompts: Any) -> Any:
            limited(*prompts.shape)
            return torch.zeros(1)

        monkeypatch.setattr(lm.model, "generate", generate)
        monkeypatch.setattr(lm, "_model_call", weigh)
        monkeypatch.setattr(StudyLM, "device", SimpleNamespace(type="cuda"))
        monkeypatch.setattr(torch, "full", lambda shape, *_, **__: torch.zeros(shape))
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction", lambda share, _: self.shares.append(share)
        )


@pytest.fixture
def lm(root: Path) -> StudyLM:
    with quiet():
        return StudyLM(str(root / "instruct"), chat.tokenizer(), device="cpu", dtype="float32")


def longest(root: Path, think: int) -> int:
    """Tokens of the longest prompt, by counting words: the template's, the question's, the line's."""
    return max(len(one["question"].split()) for one in chat.documents(COUNT, 1)) + think + 5


@pytest.mark.parametrize(("room", "found"), [(10_000, 64), (64 * 28, 32), (30, 1), (29 * 5, 4)])
def test_halved_until_it_fits(
    room: int, found: int, root: Path, lm: Any, auto: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, _ = tasks.load(auto)
    device = Small(lm, room, monkeypatch)
    set_batch_size(lm, words, auto, run)
    # "Think step by step ." is longer than no line.
    length = longest(root, 5) + chat.CAP
    sizes = [64 >> at for at in range(7)]
    assert device.tried == [(size, length) for size in sizes[: sizes.index(found) + 1]]
    assert lm.batch_size == found == max(size for size in sizes if size * length <= room)
    assert json.loads((run.path / "run.json").read_text())["batch_sizes"] == {"words": found}
    # A tenth of the device stays free while sizes are tried.
    assert device.shares == [0.9, 1.0]


def test_choices_are_tried_with_what_is_scored(
    root: Path, lm: Any, auto: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, choice = tasks.load(auto)
    device = Small(lm, 1000, monkeypatch)
    set_batch_size(lm, choice, auto, run)
    assert device.tried[0] == (128, longest(root, 5) + 1)
    assert device.tried[-1][0] == lm.batch_size


def test_what_was_found_is_taken_again(
    root: Path, lm: Any, auto: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, choice = tasks.load(auto)
    device = Small(lm, 64 * 30, monkeypatch)
    set_batch_size(lm, words, auto, run)
    set_batch_size(lm, choice, auto, run)
    noted = json.loads((run.path / "run.json").read_text())["batch_sizes"]
    assert set(noted) == {"words", "choice"}
    device.tried.clear()
    lm.batch_size_per_gpu = 3
    set_batch_size(lm, words, auto, run)
    assert (device.tried, lm.batch_size) == ([], noted["words"])


def test_not_even_one(lm: Any, auto: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    words, _ = tasks.load(auto)
    device = Small(lm, 3, monkeypatch)
    with pytest.raises(
        MismatchError,
        match=r"'words': .* does not have enough memory for one prompt of \d+ tokens and 12 new",
    ):
        set_batch_size(lm, words, auto, run)
    assert device.shares[-1] == 1.0


def test_another_error_is_no_lack_of_memory() -> None:
    def fail(size: int) -> None:
        raise RuntimeError(f"shapes do not match at {size}")

    with pytest.raises(RuntimeError, match="at 8"):
        largest(fail, 8)


def test_a_cpu_takes_sixteen(lm: Any, auto: Any, run: RunFolder) -> None:
    words, _ = tasks.load(auto)
    set_batch_size(lm, words, auto, run)
    assert lm.batch_size == 16
    assert json.loads((run.path / "run.json").read_text())["batch_sizes"] == {"words": 16}


def test_a_number_is_a_number(root: Path, lm: Any, run: RunFolder) -> None:
    study = load(root / "study.yaml")
    words, _ = tasks.load(study)
    before = (run.path / "run.json").read_text()
    set_batch_size(lm, words, study, run)
    assert lm.batch_size == 4
    assert (run.path / "run.json").read_text() == before


@pytest.mark.parametrize("kind", ["generate", "choice"])
def test_a_trial_fills_the_batch(kind: str, lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the model itself: so many rows, of that length, to the last new token."""
    seen: list[tuple[int, int]] = []
    forward = lm.model.forward

    def spied(*args: Any, **how: Any) -> Any:
        given = how.get("input_ids", args[0] if args else None)
        seen.append(tuple(given.shape))
        return forward(*args, **how)

    monkeypatch.setattr(lm.model, "forward", spied)
    with quiet():
        batch_size.attempt(lm, kind, 3, 7, 5)
    assert seen == [(3, 7), *([(3, 1)] * 4 if kind == "generate" else [])]
