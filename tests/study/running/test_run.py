"""Whole runs: arms are what written checkpoints would be, and nothing is scored twice or mixed up."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import chat
import families
import taskvec
import taskvec.study
from taskvec.errors import CorruptError, MismatchError, StorageError, UsageError
from taskvec.study.environment import quiet
from taskvec.study.running import runner
from taskvec.study.scoring import tasks
from taskvec.study.scoring.loading import generation_config
from taskvec.study.scoring.score import score
from taskvec.study.scoring.study_lm import StudyLM

if TYPE_CHECKING:
    from taskvec.study.rundir.results import Results

COUNT = 10
LINE = "Think step by step ."
BARE: dict[str, Any] = {"think": False, "minus": False, "random": [], "donors": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family, tasks, a study of all arms and its run in RUN; to be read only."""
    folder = tmp_path_factory.mktemp("root")
    chat.write_family(folder)
    # Asked in its own way a donor would answer otherwise.
    config = json.loads((folder / "grpo" / "generation_config.json").read_text())
    (folder / "grpo" / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 3.0}))
    chat.write_tasks(folder / "tasks", count=COUNT)
    chat.write_study(folder / "study.yaml", chat.study(folder, folder / "tasks"))
    taskvec.study.run(folder / "study.yaml", folder / "RUN")
    return folder


def small(root: Path, folder: Path, **changes: Any) -> Path:
    """A study of the baseline and +v on one task."""
    content = chat.study(root, root / "tasks", arms=BARE, **changes)
    content["benchmarks"] = changes.get("benchmarks", content["benchmarks"][:1])
    return chat.write_study(folder / "small.yaml", content)


def rows(run: Path, arm: str, benchmark: str) -> list[dict[str, Any]]:
    """A cell's rows, but for how long they took."""
    lines = (run / "samples" / f"{arm}.{benchmark}.jsonl").read_text().splitlines()
    return chat.untimed([json.loads(line) for line in lines])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The benchmarks that were scored, in order."""
    seen: list[str] = []

    def spied(lm: Any, loaded: Any, **how: Any) -> Any:
        seen.append(loaded.benchmark.id)
        return score(lm, loaded, **how)

    monkeypatch.setattr(runner, "score", spied)
    return seen


def test_a_run_is_complete(root: Path) -> None:
    run = root / "RUN"
    results = json.loads((run / "results.json").read_text())
    assert (results["schema"], results["complete"], results["missing"]) == ("taskvec/results/1", True, [])
    assert (run / "report.html").stat().st_size > 0
    assert (run / "study.yaml").read_text() == (root / "study.yaml").read_text()
    samples = {path.name for path in (run / "samples").iterdir()}
    arms = ["baseline", "plus", "baseline-think", "plus-think", "minus", "random-1", "random-2", "random-3",
            "minuend", "subtrahend"]  # fmt: skip
    assert samples == {f"{arm}.{one}.jsonl" for arm in arms for one in ("words", "choice")} | {
        "alpha-0.5.words.jsonl"
    }
    assert all(len(rows(run, arm, "words")) == COUNT for arm in arms)
    record = json.loads((run / "run.json").read_text())
    assert str(root) not in json.dumps(record)
    assert [one["id"] for one in record["arms"]] == [*arms[:8], "alpha-0.5", *arms[8:]]
    assert set(record["target_norms"]) == set(families.read(root / "instruct"))
    effect = json.loads((run / "arms" / "minus.json").read_text())["effect"]
    assert effect["gain"] == pytest.approx(1, abs=0.05)
    assert json.loads((run / "arms" / "baseline.json").read_text())["effect"] is None


def test_arms_differ(root: Path) -> None:
    answers = {
        path.name: [
            row["response"] for row in rows(root / "RUN", path.name.removesuffix(".words.jsonl"), "words")
        ]
        for path in (root / "RUN" / "samples").glob("*.words.jsonl")
    }
    assert len({tuple(one) for one in answers.values()}) == len(answers) == 11


def written(root: Path, folder: Path, arm: str) -> Path:
    """The checkpoint of an arm, by torch alone."""
    t, g, s = (families.read(root / name) for name in ("instruct", "grpo", "sft"))
    alpha = {"plus": 1.0, "plus-think": 1.0, "minus": -1.0, "alpha-0.5": 0.5}[arm]
    shutil.copytree(root / "instruct", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    families.write(folder, families.all_combined(t, g, s, alpha), config=None)
    return folder


def answers(checkpoint: Path, root: Path, benchmark: str, line: str | None) -> list[dict[str, Any]]:
    """What lm-eval's own loading of a checkpoint answers."""
    read = taskvec.study.load(root / "study.yaml")
    (loaded,) = [one for one in tasks.load(read) if one.benchmark.id == benchmark]
    with quiet():
        lm = StudyLM(str(checkpoint), chat.tokenizer(), 4, device="cpu", dtype="float32")
        lm.model.generation_config = generation_config(str(root / "instruct"))
    return chat.untimed(score(lm, loaded, line=line))


@pytest.mark.parametrize("arm", ["plus", "plus-think", "minus", "alpha-0.5"])
def test_arms_in_memory_and_written_answer_alike(arm: str, root: Path, tmp_path: Path) -> None:
    checkpoint = written(root, tmp_path / "out", arm)
    line = LINE if arm.endswith("think") else None
    assert rows(root / "RUN", arm, "words") == answers(checkpoint, root, "words", line)
    if arm == "plus":
        assert rows(root / "RUN", arm, "choice") == answers(checkpoint, root, "choice", line)


def test_a_random_arm_is_its_control(root: Path, tmp_path: Path) -> None:
    taskvec.apply(root / "instruct", root / "RUN" / "controls" / "random-2", tmp_path / "out")
    assert rows(root / "RUN", "random-2", "words") == answers(tmp_path / "out", root, "words", None)


@pytest.mark.parametrize(
    ("arm", "name"), [("baseline", "instruct"), ("minuend", "grpo"), ("subtrahend", "sft")]
)
def test_a_model_itself_is_asked_as_the_target_is(arm: str, name: str, root: Path) -> None:
    assert rows(root / "RUN", arm, "words") == answers(root / name, root, "words", None)


def test_a_finished_run_scores_nothing(root: Path, tmp_path: Path, scored: list[str]) -> None:
    run = shutil.copytree(root / "RUN", tmp_path / "RUN")
    (run / "results.json").unlink()
    told: list[tuple[Any, ...]] = []
    taskvec.study.run(root / "study.yaml", run, progress=lambda *at: told.append(at))
    assert (scored, told) == ([], [])
    assert (run / "results.json").read_text() == (root / "RUN" / "results.json").read_text()


def test_only_what_is_missing_is_scored(root: Path, tmp_path: Path, scored: list[str]) -> None:
    run = shutil.copytree(root / "RUN", tmp_path / "RUN")
    gone = [run / "samples" / name for name in ("minus.choice.jsonl", "subtrahend.words.jsonl")]
    for path in gone:
        path.unlink()
    told: list[tuple[Any, ...]] = []
    taskvec.study.run(root / "study.yaml", run, progress=lambda *at: told.append(at))
    assert scored == ["choice", "words"]
    for arm, benchmark in (("minus", "choice"), ("subtrahend", "words")):
        assert rows(run, arm, benchmark) == rows(root / "RUN", arm, benchmark)
    assert told[0][2:4] == (19 * COUNT, 21 * COUNT)
    assert told[-1][2:4] == (21 * COUNT, 21 * COUNT)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
def test_an_interrupted_run_goes_on(
    error: type[BaseException], root: Path, tmp_path: Path, scored: list[str]
) -> None:
    """Stopped in the middle of the third cell of four."""
    study = small(root, tmp_path, benchmarks=chat.study(root, root / "tasks")["benchmarks"])

    def stop(arm: str, benchmark: str, done: int, total: int, left: float | None) -> None:
        if done > 2 * COUNT:
            raise error

    with pytest.raises((error, MismatchError)):
        taskvec.study.run(study, tmp_path / "RUN", progress=stop)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "RUN" / "samples").iterdir()}
    assert sorted(finished) == [".plus.words.answers.jsonl", "baseline.choice.jsonl", "baseline.words.jsonl"]
    del finished[".plus.words.answers.jsonl"]
    assert not (tmp_path / "RUN" / "results.json").exists()
    partial, page = taskvec.study.report(tmp_path / "RUN")
    assert page == tmp_path / "RUN" / "report.html"
    assert (partial.complete, partial.missing) == (False, ("plus.words", "plus.choice"))
    assert scored == ["words", "choice", "words"]
    scored.clear()
    results = taskvec.study.run(study, tmp_path / "RUN")
    assert results.complete
    assert scored == ["words", "choice"]
    for name, when in finished.items():
        assert (tmp_path / "RUN" / "samples" / name).stat().st_mtime_ns == when
    for arm in ("baseline", "plus"):
        for benchmark in ("words", "choice"):
            assert rows(tmp_path / "RUN", arm, benchmark) == rows(root / "RUN", arm, benchmark)


def test_a_cell_half_written_is_not_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small(root, tmp_path)

    def fail(self: Path, target: Path) -> Path:
        if target.suffix == ".jsonl":
            raise OSError(28, "No space left on device", str(target))
        return replace(self, target)

    replace = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(StorageError, match=r"samples/baseline\.\w+\.jsonl cannot be written: No space"):
            taskvec.study.run(study, tmp_path / "RUN")
    # What was answered is not lost with it.
    (left,) = (tmp_path / "RUN" / "samples").iterdir()
    assert left.name == ".baseline.words.answers.jsonl"
    assert taskvec.study.run(study, tmp_path / "RUN").complete
    assert not left.exists()


def test_more_arms_may_be_added(root: Path, tmp_path: Path, scored: list[str]) -> None:
    taskvec.study.run(small(root, tmp_path), tmp_path / "RUN")
    content = chat.study(root, root / "tasks", arms={**BARE, "minus": True, "sweep": [0.5]})
    content["benchmarks"] = content["benchmarks"][:1]
    scored.clear()
    results = taskvec.study.run(chat.write_study(tmp_path / "more.yaml", content), tmp_path / "RUN")
    assert scored == ["words", "words"]
    assert results.complete
    assert [arm.id for arm in results.arms] == ["baseline", "plus", "minus", "alpha-0.5"]


WORDS = {"id": "words", "task": "tiny_words", "max_new_tokens": chat.CAP}
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "alpha": ({"alpha": 0.5}, "study.alpha was 1.0 and now is 0.5"),
    "batch_size": ({"batch_size": 5}, "study.batch_size was 4 and now is 5"),
    "dtype": ({"dtype": "bfloat16"}, 'dtype was "float32" and now is "bfloat16"'),
    "rounding": ({"rounding": "stochastic"}, "study.rounding"),
    "cap": ({"benchmarks": [{**WORDS, "max_new_tokens": 9}]}, "words.max_new_tokens"),
    "limit": ({"benchmarks": [{**WORDS, "limit": 4}]}, "benchmarks.words.limit was null and now is 4"),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_study_is_not_taken_for_this_one(
    name: str, root: Path, tmp_path: Path, scored: list[str]
) -> None:
    run = tmp_path / "RUN"
    taskvec.study.run(small(root, tmp_path), run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    scored.clear()
    changes, says = OTHER[name]
    with pytest.raises(MismatchError) as caught:
        taskvec.study.run(small(root, tmp_path, **changes), run)
    assert says in str(caught.value)
    assert "another folder, or --overwrite" in str(caught.value)
    assert scored == []
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_weights_and_questions_that_changed(root: Path, tmp_path: Path, scored: list[str]) -> None:
    for name in ("instruct", "grpo", "sft", "tasks"):
        shutil.copytree(root / name, tmp_path / name)
    study, run = small(tmp_path, tmp_path), tmp_path / "RUN"
    taskvec.study.run(study, run)
    # A retrained model has the same header and size.
    path = tmp_path / "grpo" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(MismatchError, match=r"inputs\.minuend was"):
        taskvec.study.run(study, run)
    shutil.copy(root / "grpo" / "model.safetensors", path)
    lines = (tmp_path / "tasks" / "test.jsonl").read_text()
    (tmp_path / "tasks" / "test.jsonl").write_text(lines.replace('"answer": "w', '"answer": "w1', 1))
    with pytest.raises(MismatchError, match=r"benchmarks\.words\.asked"):
        taskvec.study.run(study, run)
    scored.clear()
    assert taskvec.study.run(study, run, overwrite=True).complete
    assert scored == ["words", "words"]


def test_what_is_left_of_a_run_is_no_run(root: Path, tmp_path: Path, scored: list[str]) -> None:
    run = tmp_path / "RUN"
    taskvec.study.run(small(root, tmp_path), run)
    (run / "run.json").unlink()
    before = families.files(run)
    scored.clear()
    other = small(root, tmp_path, alpha=0.5)
    with pytest.raises(
        MismatchError, match=r"whose run\.json is missing; give another folder, or --overwrite"
    ):
        taskvec.study.run(other, run)
    assert families.files(run) == before
    assert taskvec.study.run(other, run, overwrite=True).complete
    assert scored == ["words", "words"]


def test_what_a_killed_run_was_at_work_on_goes(root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(root / "RUN", tmp_path / "RUN")
    for name in ("controls/.control-x", "checkpoints/plus"):
        (run / name).mkdir(parents=True)
        (run / name / "model.safetensors").write_bytes(b"half of it")
    before = families.files(root / "RUN")
    taskvec.study.run(root / "study.yaml", run)
    assert families.files(run).keys() == before.keys()


def test_one_run_at_a_time(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    run.mkdir()
    with (run / "run.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another run is active there"):
            taskvec.study.run(small(root, tmp_path), run)
    assert taskvec.study.run(small(root, tmp_path), run, limit=2).complete


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_left_alone(overwrite: bool, root: Path, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    (run / "vector").mkdir(parents=True)
    (run / "vector" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds vector, not a run"):
        taskvec.study.run(small(root, tmp_path), run, overwrite=overwrite)
    assert families.files(run) == {"vector/thesis.txt": b"years of work"}


def test_a_folder_that_cannot_be_made(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="give a folder that can be written"):
        taskvec.study.run(small(root, tmp_path), tmp_path / "file" / "RUN")


def test_a_damaged_record(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "RUN"
    run.mkdir()
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        taskvec.study.report(run)
    for text, error in (("{", CorruptError), ("[]", CorruptError), ("{}", CorruptError)):
        (run / "run.json").write_text(text)
        with pytest.raises(error, match=r"run\.json"):
            taskvec.study.report(run)
        with pytest.raises(error, match=r"run\.json"):
            taskvec.study.run(small(root, tmp_path), run)
    (run / "run.json").write_text('{"schema": "taskvec/run/9", "identity": {}}')
    with pytest.raises(MismatchError, match="update taskvec"):
        taskvec.study.report(run)


@pytest.mark.parametrize("call", [1, 2])
def test_nothing_is_scored_where_the_model_is_not_the_file(
    call: int, root: Path, tmp_path: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As loaded, and with α = 0."""
    calls: list[int] = []

    def unlike(model: Any, target: str) -> tuple[str, ...]:
        calls.append(1)
        return ("model.norm.weight",) if len(calls) == call else ()

    monkeypatch.setattr(runner, "unlike", unlike)
    with pytest.raises(MismatchError, match=r"model\.norm\.weight"):
        taskvec.study.run(small(root, tmp_path), tmp_path / "RUN")
    assert scored == []


def test_the_target_is_itself_again_at_the_end(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, by torch alone."""
    models: list[Any] = []
    load = runner.load_model

    def kept(*args: Any) -> Any:
        models.append(load(*args))
        return models[-1]

    monkeypatch.setattr(runner, "load_model", kept)
    taskvec.study.run(small(root, tmp_path), tmp_path / "RUN")
    (model,) = models
    for name, tensor in families.read(root / "instruct").items():
        families.assert_same(model.get_parameter(name).detach(), tensor.to(torch.float32), name)


def test_a_vector_of_ones_own(root: Path, tmp_path: Path) -> None:
    content = chat.study(
        root, root / "tasks", vector=str(root / "RUN" / "vector"), arms=BARE | {"donors": None}
    )
    del content["donors"]
    results: Results = taskvec.study.run(chat.write_study(tmp_path / "v.yaml", content), tmp_path / "RUN")
    assert results.complete
    assert [one.role for one in results.inputs] == ["target", "vector"]
    assert not (tmp_path / "RUN" / "vector").exists()
    assert rows(tmp_path / "RUN", "plus", "words") == rows(root / "RUN", "plus", "words")


def test_a_limit_for_a_trial(root: Path, tmp_path: Path) -> None:
    results = taskvec.study.run(small(root, tmp_path), tmp_path / "RUN", limit=3)
    assert results.benchmarks[0].n == 3
    assert rows(tmp_path / "RUN", "plus", "words")[0] == rows(root / "RUN", "plus", "words")[0]
    with pytest.raises(UsageError, match="limit 0"):
        taskvec.study.run(small(root, tmp_path), tmp_path / "RUN", limit=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device cuda does not exist here"):
        taskvec.study.run(small(root, tmp_path), tmp_path / "RUN", device="cuda")
