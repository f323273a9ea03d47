"""Made-up documents in the very form of the real data sets, as files and as a cache of `datasets`.

The cache is what a download leaves behind: with it, lm-eval's registered tasks run untouched and offline.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from datasets.arrow_writer import ArrowWriter

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUBTASKS = sorted(
    path.stem for path in (Path(lm_eval.__file__).parent / "tasks/bbh/cot_zeroshot").glob("[a-z]*.yaml")
)
VARIATIONS = [
    "numerical substitution", "digit expansion", "integer-decimal-fraction conversion", "adding operation",
    "reversing operation", "problem understanding", "distraction insertion", "critical thinking",
]  # fmt: skip

Rows = list[dict[str, Any]]


def gsm8k(first: int, count: int) -> Rows:
    """Sums; the answer stands after ####."""
    return [
        {
            # Words that the tiny models know, so that their answers differ.
            "question": f"w{n % 24} w{n * 7 % 24} w{n * 5 % 24} . w{n * 11 % 24} w{n // 2 % 24} ?",
            "answer": f"{n} + {n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1} apples.\n#### {2 * n + 1}",
        }
        for n in range(first, first + count)
    ]


def gsm_plus(count: int) -> Rows:
    """Each seed question in eight variations; the last cannot be answered."""
    return [
        {
            "question": f"{seed['question']} ({at})",
            "solution": "None" if kind == "critical thinking" else seed["answer"],
            "answer": "None" if kind == "critical thinking" else seed["answer"].split("#### ")[1],
            "perturbation_type": kind,
            "seed_question": seed["question"],
            "seed_solution": seed["answer"].split("\n")[0],
            "seed_answer": seed["answer"].split("#### ")[1],
        }
        for seed in gsm8k(30, count)
        for at, kind in enumerate(VARIATIONS)
    ]


def sciq(count: int) -> Rows:
    return [
        {
            "question": f"What is thing {at}?",
            "distractor1": "w1",
            "distractor2": "w2 w3",
            "distractor3": "w4",
            "correct_answer": "w5",
            "support": f"Thing {at} is w5.",
        }
        for at in range(count)
    ]


def bbh(subtask: str, count: int) -> Rows:
    if subtask == "word_sorting":
        said = "Sort the following words alphabetically: List: w2 w1 w0"
        return [{"input": f"{said} w{at}", "target": f"w0 w1 w2 w{at}"} for at in range(3, 3 + count)]
    return [
        {"input": f"Which is it, number {at}?\nOptions:\n(A) w1\n(B) w2", "target": "(B)"}
        for at in range(count)
    ]


def humaneval() -> Rows:
    """Two small functions with their tests."""
    return [
        {
            "task_id": f"HumanEval/{at}",
            "prompt": f'def {name}(a, b):\n    """ a {sign} b.\n    >>> {name}(2, 3)\n    {out}\n    """\n',
            "canonical_solution": f"    return a {sign} b\n",
            "test": f"def check(candidate):\n    assert candidate(2, 3) == {out}\n",
            "entry_point": name,
        }
        for at, (name, sign, out) in enumerate([("add", "+", 5), ("times", "*", 6)])
    ]


def sets() -> dict[tuple[str, str], dict[str, Rows]]:
    """Splits by repository and configuration."""
    return {
        ("openai/gsm8k", "main"): {"train": gsm8k(2, 8), "test": gsm8k(20, 4)},
        ("madrylab/gsm8k-platinum", "main"): {"test": gsm8k(20, 3)},
        ("qintongli/GSM-Plus", "default"): {"test": gsm_plus(2), "testmini": gsm_plus(1)},
        ("allenai/sciq", "default"): {"train": sciq(2), "validation": sciq(2), "test": sciq(5)},
        **{("SaylorTwift/bbh", name): {"test": bbh(name, 2)} for name in SUBTASKS},
        ("openai/openai_humaneval", "openai_humaneval"): {"test": humaneval()},
        ("evalplus/humanevalplus", "default"): {"test": humaneval()},
    }


def write_cache(cache: Path) -> None:
    """What `datasets` would keep of all of them at `COMMIT`."""
    for (repository, name), splits in sets().items():
        owner, _, short = repository.partition("/")
        spelled = "gsm-plus" if short == "GSM-Plus" else short
        folder = cache / f"{owner}___{spelled}" / name / "0.0.0" / COMMIT
        folder.mkdir(parents=True)
        infos = datasets.SplitDict(dataset_name=spelled)
        features = None
        for split, rows in splits.items():
            features = datasets.Dataset.from_list(rows).features
            with ArrowWriter(path=str(folder / f"{spelled}-{split}.arrow"), features=features) as writer:
                for row in rows:
                    writer.write(row)
                writer.finalize()
            infos.add(datasets.SplitInfo(split, num_examples=len(rows)))
        datasets.DatasetInfo(
            features=features, builder_name="parquet", dataset_name=spelled, config_name=name,
            version="0.0.0", splits=infos,
        ).write_to_directory(str(folder))  # fmt: skip


def write_files(root: Path) -> dict[str, Any]:
    """The same as JSON lines; returns what `data` of a study may say, by benchmark."""
    found: dict[str, Any] = {}
    places = {"openai/gsm8k": "gsm8k", "madrylab/gsm8k-platinum": "gsm8k_platinum", "allenai/sciq": "sciq",
              "qintongli/GSM-Plus": "gsm_plus", "SaylorTwift/bbh": "bbh",
              "openai/openai_humaneval": "humaneval", "evalplus/humanevalplus": "humaneval_plus"}  # fmt: skip
    for (repository, name), splits in sets().items():
        benchmark = places[repository]
        folder = root / benchmark / (name if benchmark == "bbh" else "")
        folder.mkdir(parents=True, exist_ok=True)
        extra = {"train": gsm8k(2, 8)} if benchmark in ("gsm8k_platinum", "gsm_plus") else {}
        for split, rows in {**splits, **extra}.items():
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[benchmark] = str(root / benchmark)
    return found
