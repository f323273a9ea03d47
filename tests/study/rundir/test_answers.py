"""Answers written as batches finish: an interruption loses a batch, and what comes after is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

import chat
import taskvec.study
from taskvec.errors import CorruptError, MismatchError, StorageError
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.rundir import answers
from taskvec.study.rundir.answers import Answer, Answers, Question
from taskvec.study.scoring import tasks
from taskvec.study.scoring.prompts import render
from taskvec.study.scoring.study_lm import Chosen, Generated, StudyLM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 14
SIZE = 4
ARMS: dict[str, Any] = {"think": False, "minus": False, "random": [], "donors": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family; a group of two tasks that generate, ended by other strings, and one that chooses."""
    folder = tmp_path_factory.mktemp("root")
    chat.write_family(folder)
    other = chat.task("tiny_two", generation_kwargs={"until": ["w3"], "do_sample": False})
    group = {"group": "both", "task": ["tiny_one", "tiny_two"]}
    chat.write_tasks(
        folder / "tasks", chat.task("tiny_one"), other, group, chat.choice("tiny_choice"), count=COUNT
    )
    # One token, two, three, and two that begin alike.
    for at, row in enumerate(rows := chat.documents(COUNT, 1)):
        row["choices"] = [["w0", "w1", "w2"], ["w0 w4", "w1", "w0 w5"], ["w9 w8 w7", "w1 w3"]][at % 3]
    chat.write_lines(folder / "tasks" / "test.jsonl", rows)
    return folder


def study(root: Path, folder: Path, **changes: Any) -> Path:
    benchmarks = [
        {"id": "words", "task": "both", "title": "Words", "max_new_tokens": chat.CAP},
        {"id": "choice", "task": "tiny_choice"},
    ]
    content = chat.study(root, root / "tasks", arms=ARMS, benchmarks=benchmarks, **changes)
    return chat.write_study(folder / "study.yaml", content)


def requests(root: Path, folder: Path, benchmark: str) -> list[Any]:
    found = {one.benchmark.id: one for one in tasks.load(load(study(root, folder)))}[benchmark]
    render(found, chat.tokenizer(), None)
    return [one for task in found.tasks for one in task.instances]


class Batches:
    """What reaches the model, batch by batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[list[int]]] = []
        weigh, generate = HFLM._model_call, HFLM._model_generate

        def weighed(lm: Any, given: Any, *args: Any, **how: Any) -> Any:
            self.seen.append(given.tolist())
            return weigh(lm, given, *args, **how)

        def generated(lm: Any, context: Any, *args: Any, **how: Any) -> Any:
            self.seen.append(context.tolist())
            return (generate if type(lm) is HFLM else own)(lm, context, *args, **how)

        own = StudyLM._model_generate
        monkeypatch.setattr(HFLM, "_model_call", weighed)
        for kind in (HFLM, StudyLM):
            monkeypatch.setattr(kind, "_model_generate", generated)

    def take(self) -> list[list[list[int]]]:
        found, self.seen = self.seen, []
        return found


def loaded(root: Path, kind: Any, dtype: torch.dtype = torch.float32) -> Any:
    with quiet():
        return kind(pretrained=str(root / "instruct"), dtype=dtype, device="cpu", batch_size=SIZE)


def ours(root: Path, dtype: torch.dtype = torch.float32) -> StudyLM:
    with quiet():
        return StudyLM(str(root / "instruct"), chat.tokenizer(), SIZE, device="cpu", dtype=dtype)


ASK: dict[str, Callable[[Any, list[Any]], list[Any]]] = {
    "words": lambda lm, asked: lm.generate_until(asked),
    "choice": lambda lm, asked: lm.loglikelihood(asked),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("benchmark", ASK)
def test_batches_are_lm_evals_own(
    benchmark: str, dtype: torch.dtype, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, batches = requests(root, tmp_path, benchmark), Batches(monkeypatch)
    with quiet():
        theirs = ASK[benchmark](loaded(root, HFLM, dtype), asked)
        expected = batches.take()
        assert ASK[benchmark](ours(root, dtype), asked) == theirs
    assert batches.take() == expected
    assert len(expected) > 4


class Stopped(Exception):
    pass


@pytest.mark.parametrize("benchmark", ASK)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cell_goes_on_with_the_batches_that_it_would_have_had(
    after: int, benchmark: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, batches = requests(root, tmp_path, benchmark), Batches(monkeypatch)
    with quiet():
        whole = ASK[benchmark](ours(root), asked)
    expected = batches.take()

    lm, told = ours(root), list[tuple[int, int]]()

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) > after:
            raise Stopped

    lm.progress = stop
    with quiet(), Answers(tmp_path / "answers") as lm.answers, pytest.raises(Stopped):
        ASK[benchmark](lm, asked)
    assert batches.take() == expected[:after]
    assert told[-1][1] == len(asked)

    again, later = ours(root), list[tuple[int, int]]()
    again.progress = lambda *at: later.append(at)
    with quiet(), Answers(tmp_path / "answers") as again.answers:
        assert ASK[benchmark](again, asked) == whole
    assert batches.take() == expected[after:]
    assert later[0] == told[-1]
    assert later[-1] == (len(asked), len(asked))
    assert set(again.records) == {(one.task_name, one.doc_id) for one in asked}

    third = ours(root)
    with quiet(), Answers(tmp_path / "answers") as third.answers:
        assert ASK[benchmark](third, asked) == whole
    assert batches.take() == []
    assert third.records == again.records


@pytest.mark.parametrize("benchmark", ASK)
def test_seconds_add_up_to_the_time_of_the_cell(
    benchmark: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lm, clock = requests(root, tmp_path, benchmark), ours(root), iter(range(1000))
    monkeypatch.setattr("taskvec.study.scoring.study_lm.time.perf_counter", lambda: float(next(clock)))
    with quiet():
        ASK[benchmark](lm, asked)
    # Two readings a batch, one apart.
    batches = (next(clock)) / 2
    assert sum(one.seconds for one in lm.records.values()) == pytest.approx(batches)
    assert {type(one) for one in lm.records.values()} == {Generated if benchmark == "words" else Chosen}


KILLED = """
import os, signal, sys
import taskvec.study
reports = []
def kill(*at):
    reports.append(at)
    if at[2] >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
taskvec.study.run(sys.argv[1], sys.argv[2], progress=kill)
"""


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return chat.untimed([json.loads(line) for line in (run / "samples" / name).read_text().splitlines()])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_is_killed_goes_on_after_its_last_batch(
    dtype: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = study(root, tmp_path, dtype=dtype), tmp_path / "RUN"
    batches = Batches(monkeypatch)
    taskvec.study.run(path, tmp_path / "whole")
    every = sum(map(len, batches.take()))
    for done, journal in ((9, ".baseline.words.answers.jsonl"), (34, ".baseline.choice.answers.jsonl")):
        killed = subprocess.run([sys.executable, "-c", KILLED, path, run, str(done)], check=False)
        assert killed.returncode == -signal.SIGKILL
        left = [one.name for one in (run / "samples").iterdir() if one.name.startswith(".")]
        assert left == [journal]
        assert (run / "samples" / journal).stat().st_size > 0
    told: list[tuple[Any, ...]] = []
    assert taskvec.study.run(path, run, progress=lambda *at: told.append(at)).complete
    # What is there is counted before the first batch.
    assert [done >= 34 for _, what, done, *_ in told if what == "choice"][1]
    names = sorted(one.name for one in (tmp_path / "whole" / "samples").iterdir())
    assert sorted(one.name for one in (run / "samples").iterdir()) == names
    for name in names:
        assert rows(run, name) == rows(tmp_path / "whole", name)
    # Of the baseline no text is generated again, and not all choices are weighed.
    assert not any((arm, what) == ("instruct", "Words") for arm, what, *_ in told)
    assert sum(map(len, batches.take())) < every - 2 * COUNT


def test_a_journal_whose_cell_is_finished_goes(root: Path, tmp_path: Path) -> None:
    path, run = study(root, tmp_path), tmp_path / "RUN"
    taskvec.study.run(path, run, limit=2)
    left = run / "samples" / ".plus.words.answers.jsonl"
    left.write_text("")
    taskvec.study.run(path, run, limit=2)
    assert not left.exists()


def questions(count: int = 6, size: int = 2) -> list[Question]:
    return [Question("task", at, 0, at // size, answers.digest("asked", str(at))) for at in range(count)]


def said(at: int) -> Answer:
    made = {"tokens": at, "truncated": False, "prompt_tokens": 3}
    return Answer(f"answer {at} \ud800 ü\n", made, 0.25) if at % 2 else Answer((-1.5 * at, True), None, 0.5)


def written(path: Path, count: int) -> list[Question]:
    """A journal of the first so many questions."""
    asked = questions()
    with Answers(path) as journal:
        assert journal.take_up(asked) == {}
        for at in range(0, count, 2):
            journal.add((one, said(one.doc_id)) for one in asked[at : min(at + 2, count)])
    return asked


def taken_up(path: Path, asked: list[Question]) -> dict[Question, Answer]:
    with Answers(path) as journal:
        return journal.take_up(asked)


@pytest.mark.parametrize(("count", "whole"), [(0, 0), (2, 2), (3, 2), (6, 6)])
def test_whole_batches_are_kept(count: int, whole: int, tmp_path: Path) -> None:
    asked = written(tmp_path / "journal", count)
    for _ in range(2):
        assert taken_up(tmp_path / "journal", asked) == {one: said(one.doc_id) for one in asked[:whole]}
    assert len((tmp_path / "journal").read_text().splitlines()) == whole


@pytest.mark.parametrize("left", [1, 30, -1])
def test_a_line_that_was_cut_short(left: int, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    asked = written(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:left])
    assert set(taken_up(path, asked)) == set(asked[:4])
    assert path.read_bytes() == b"".join(lines[:4])


def other(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: value})


@pytest.mark.parametrize(
    "change",
    [other("asked", "f" * 32), other("doc_id", 7), other("batch", 0), other("task", "another"),
     other("request", 1)],
)  # fmt: skip
def test_an_answer_to_another_question(change: Callable[[Any], object], tmp_path: Path) -> None:
    path = tmp_path / "journal"
    asked = written(path, 6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines[3])
    chat.write_lines(path, lines)
    before = path.read_bytes()
    with pytest.raises(CorruptError, match=r"journal:4: answers a question that this cell does not ask"):
        taken_up(path, asked)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ["", "[]", "nonsense", "[" * 100_000, json.dumps({"task": "task"}),
     *(json.dumps({"task": "task", "doc_id": 3, "request": 0, "batch": 1, "asked": "", "seconds": 1.0,
                   "answer": "x", "made": {"tokens": 1, "truncated": False, "prompt_tokens": 3}} | change)
       for change in ({"doc_id": "3"}, {"doc_id": True}, {"answer": 3}, {"made": []}, {"made": {}},
                      {"made": None}, {"made": None, "answer": [1]}, {"seconds": None}))],
)  # fmt: skip
def test_what_is_not_an_answer(line: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    asked = written(path, 6)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], line, *lines[4:], ""]))
    with pytest.raises(CorruptError, match=r"journal:4: is not an answer as a run writes it; delete"):
        taken_up(path, asked)


def test_a_question_answered_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    asked = written(path, 6)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[2]]))
    with pytest.raises(CorruptError, match=r"journal:7: answers a question twice"):
        taken_up(path, asked)


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=r"journal cannot be written: No space left on device; free some space"
    ):
        written(tmp_path / "journal", 2)


def test_infinities_and_half_characters_come_back(tmp_path: Path) -> None:
    (one,) = asked = questions(1)
    for answer in (Answer((float("-inf"), False), None, 0.1), Answer("", said(1).made, 0.1)):
        path = tmp_path / str(answer.made is None)
        with Answers(path) as journal:
            journal.take_up(asked)
            journal.add([(one, answer)])
        assert taken_up(path, asked) == {one: answer}


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(),
     RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory:"
                  " you tried to allocate 1 bytes. Error code 12 (Cannot allocate memory)")],
)  # fmt: skip
@pytest.mark.parametrize("benchmark", ASK)
def test_no_memory_on_the_device(
    benchmark: str, error: Exception, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs out in the third batch: what is finished is kept, and the sentence says what to do."""
    path, calls = study(root, tmp_path), list[int]()
    forward = {"words": "_model_generate", "choice": "_model_call"}[benchmark]
    whole = getattr(StudyLM, forward)

    def full(lm: Any, *args: Any, **how: Any) -> Any:
        calls.append(len(args[0] if args else how["context"]))
        if len(calls) > 2:
            raise error
        return whole(lm, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(StudyLM, forward, full)
        says = (
            r"task \w+: cpu ran out of memory at batch_size 4; free memory there and run the same command"
            " again, which continues after the last finished batch, or set batch_size: 2 or auto and start"
            " again with --overwrite"
        )
        with pytest.raises(MismatchError, match=says):
            taskvec.study.run(path, tmp_path / "RUN")
    # Asked a second time, with what the allocator held given back.
    assert len(calls) == 4
    (journal,) = (tmp_path / "RUN" / "samples").glob(".*")
    assert len({json.loads(line)["batch"] for line in journal.read_text().splitlines()}) == 2
    assert taskvec.study.run(path, tmp_path / "RUN").complete


def test_memory_that_runs_out_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, lm, whole = requests(root, tmp_path, "words"), ours(root), StudyLM._model_generate
    calls: list[int] = []

    def full(lm: Any, *args: Any, **how: Any) -> Any:
        calls.append(len(args[0] if args else how["context"]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(lm, *args, **how)

    with quiet():
        expected = lm.generate_until(asked)
        monkeypatch.setattr(StudyLM, "_model_generate", full)
        assert lm.generate_until(asked) == expected
    assert calls[1] == calls[2]


def test_one_prompt_is_too_much(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    asked, lm = requests(root, tmp_path, "words"), ours(root)
    lm.batch_size_per_gpu = 1
    monkeypatch.setattr(StudyLM, "_model_generate", full)
    with (
        quiet(),
        pytest.raises(MismatchError, match=r"at batch_size 1; .* use another device or a smaller dtype"),
    ):
        lm.generate_until(asked)


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(
        StorageError, match=r"journal cannot be read: Is a directory; delete it and run again"
    ):
        taken_up(tmp_path / "journal", questions(1))
