"""What a study will take, held against what it took: on a clock that goes by what the model computes."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import transformers

import chat
import taskvec.study
from taskvec.study.running import measure, memory, preflight
from taskvec.study.running.memory import Peak
from taskvec.study.spec.study_file import Vllm, VllmBackend

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 8
ARMS: dict[str, Any] = {"think": False, "minus": True, "random": [1, 2, 3], "donors": True, "sweep": [0.5]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that never ends an answer, and questions of one length each."""
    folder = tmp_path_factory.mktemp("root")
    chat.write_family(folder)
    path = folder / "instruct" / "generation_config.json"
    never = {"suppress_tokens": [chat.VOCABULARY.index("<|im_end|>")]}
    path.write_text(json.dumps(json.loads(path.read_text()) | never))
    how = {"until": [], "do_sample": False}
    chat.write_tasks(
        folder / "tasks",
        chat.task("tiny_words", generation_kwargs=how), chat.choice("tiny_choice"),
    )  # fmt: skip
    rows = [{**row, "question": f"w{at} w2 w{at + 1} ?"} for at, row in enumerate(chat.documents(COUNT, 1))]
    chat.write_lines(folder / "tasks" / "test.jsonl", rows)
    return folder


def study(root: Path, folder: Path, **changes: Any) -> Path:
    benchmarks = [
        {"id": "words", "task": "tiny_words", "max_new_tokens": chat.CAP},
        {"id": "short", "task": "tiny_words", "max_new_tokens": 5, "sweep": False},
        {"id": "choice", "task": "tiny_choice"},
    ]
    given = {"arms": ARMS, "benchmarks": benchmarks} | changes
    return chat.write_study(folder / "study.yaml", chat.study(root, root / "tasks", **given))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts tokens that go through a model; time passes by them."""
    passed = [0]
    forward = transformers.Qwen3ForCausalLM.forward

    def counted(self: Any, *args: Any, **how: Any) -> Any:
        passed[0] += how.get("input_ids", args[0] if args else None).numel()
        return forward(self, *args, **how)

    monkeypatch.setattr(transformers.Qwen3ForCausalLM, "forward", counted)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(passed[0]))
    return passed


def test_a_study_takes_what_was_estimated(root: Path, tmp_path: Path, clock: list[int]) -> None:
    path = study(root, tmp_path)
    found = measure.estimate(preflight.look(path), tmp_path / "RUN")
    before = clock[0]
    taskvec.study.run(path, tmp_path / "RUN")
    took = clock[0] - before
    # Every answer runs to its cap, and all prompts of a benchmark are of one length.
    assert found.seconds == pytest.approx(took)
    assert found.most_seconds == pytest.approx(took)
    words, choice = found.measured
    assert (words.benchmark, words.rows, words.tokens) == ("words", 4, 4 * chat.CAP)
    assert (choice.benchmark, choice.rows) == ("choice", 1)
    assert not any((tmp_path / "RUN" / "samples").glob(".*"))
    kept = sum(one.stat().st_size for name in ("vector", "controls", "samples")
               for one in (tmp_path / "RUN" / name).rglob("*"))  # fmt: skip
    assert 0.5 * kept < found.disk < 2 * kept


def test_answers_that_end_take_less(root: Path, tmp_path: Path, clock: list[int]) -> None:
    shutil.copytree(root, tmp_path / "root")
    how = {"until": [f"w{at}" for at in range(24)], "do_sample": False}
    chat.write_tasks(tmp_path / "root" / "tasks", chat.task("tiny_words", generation_kwargs=how), count=COUNT)
    path = study(tmp_path / "root", tmp_path)
    found = measure.estimate(preflight.look(path), tmp_path / "RUN")
    before = clock[0]
    taskvec.study.run(path, tmp_path / "RUN")
    assert found.most_seconds is not None
    assert found.seconds is not None
    assert found.seconds < found.most_seconds
    assert clock[0] - before < found.most_seconds


def test_what_is_said(root: Path, tmp_path: Path) -> None:
    ready = preflight.look(study(root, tmp_path))
    found = measure.estimate(ready)
    told = json.loads(json.dumps(found.to_json()))
    assert told["free"] == found.free
    assert [one["benchmark"] for one in told["measured"]] == ["words", "choice"]
    lines = list(found.lines())
    assert found.seconds is not None
    took = "under a minute" if found.seconds < 60 else f"about {round(found.seconds / 60)} min"
    for at, words in enumerate(("words: 4 answers, ", "choice: 1 choice, ", f"time        {took}",
                                "memory      ", "disk        ")):  # fmt: skip
        assert words in lines[at], lines[at]
    assert " tokens/s" in lines[0]
    assert not (tmp_path / "RUN").exists()


def test_another_backend_is_not_measured_and_wants_a_checkpoint(root: Path, tmp_path: Path) -> None:
    ready = preflight.look(study(root, tmp_path))
    backend = VllmBackend(vllm=Vllm(python="python"))
    apart = replace(ready, study=ready.study.model_copy(update={"backend": backend}))
    found = measure.estimate(apart, tmp_path / "RUN")
    assert (found.measured, found.seconds, found.memory) == ((), None, None)
    weights = (root / "instruct" / "model.safetensors").stat().st_size
    assert found.disk >= measure.estimate(ready, tmp_path / "RUN").disk + weights


def estimate(**changes: Any) -> measure.Estimate:
    given: dict[str, Any] = {
        "measured": (), "seconds": 2400.0, "most_seconds": 8000.0, "memory": 20_000_000_000,
        "device_memory": 85_000_000_000, "disk": 5_000_000, "free": 10_000_000,
    }  # fmt: skip
    return measure.Estimate(**(given | changes))


def test_in_words() -> None:
    assert list(estimate().lines()) == [
        "  time        about 40 min; about 2 h 13 min if answers reach their token limits",
        "  memory      20 GB of 85 GB on the device",
        "  disk        5 MB of 10 MB that are free",
    ]
    assert list(estimate(most_seconds=2400.0, memory=None, free=1000).lines()) == [
        "  time        about 40 min",
        "  disk        5 MB of 1 kB that are free: too little, free some space or use another disk",
    ]
    assert next(estimate(seconds=None, most_seconds=None).lines()) == (
        "  time        not measured: the backend is in another environment"
    )


def test_memory_is_that_of_the_weights_and_more(root: Path) -> None:
    model, block = chat.model(0), 80_000_000
    with Peak("cpu") as peak:
        peak.loaded(model)
        held = bytearray(block)
        for at in range(0, block, 4096):
            held[at] = 1
        time.sleep(0.2)
        del held
    weights = sum(one.numel() for one in model.parameters()) * 2
    assert peak.bytes is not None
    assert peak.bytes > weights + block
    assert peak.bytes < memory._anonymous() + weights + 2 * block  # pyright: ignore


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    with Peak("cpu") as peak:
        peak.loaded(chat.model(0))
    assert peak.bytes is None
