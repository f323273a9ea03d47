"""Builds the benchmarks that taskvec knows by name, from lm-eval's own configurations.

They differ from lm-eval's tasks only in this. Few-shot examples that would be drawn from the questions
themselves come from the training split of GSM8K. BBH prompts do not ask for steps, since the think arms add
that line. HumanEval uses its instruct form and runs in the sandbox.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..environment import library
from ..spec.catalogue import CRITICAL, SEEDS
from .code import judged
from .data import GSM8K, Source
from .unanswerable import says_so

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...records import Json
    from ..spec.asked import Asked
    from .code import Judge

# The end of BBH's zero-shot prompts in lm-eval; the text after "A:" asks for steps, as a think arm does.
_STEPS = re.compile(r"\nA: Let's think step by step\.?\s*$")


def source(benchmark: Asked) -> Source:
    """The source of a benchmark's documents."""
    found = Source(benchmark.id, benchmark.data, benchmark.data_revision)
    if benchmark.shots != 0 and benchmark.task in ("gsm8k_platinum", "gsm_plus", SEEDS, CRITICAL):
        found.shots = GSM8K
    if benchmark.task in ("gsm_plus", CRITICAL):
        found.aliases = (("solution", "answer"),)
    return found


def build(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
    """Builds the task objects of a benchmark in the catalogue, and loads its data."""
    return _BUILDERS[benchmark.task](benchmark, judge)


def place(benchmark: Asked, task: str, document: Any) -> tuple[str, str | None]:
    """The subtask of a document, and the key of the seed question that it shares with others (or None)."""
    if benchmark.task == "gsm_plus":
        return str(document["perturbation_type"]), _key(document["seed_question"])
    if benchmark.task == SEEDS:
        return task, _key(document["question"])
    return task, None


def _key(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def _config(*place: str, functions: bool = True) -> Json:
    """A configuration of lm-eval, with the files that it includes merged in."""
    path = Path(library("lm_eval").__file__).parent.joinpath("tasks", *place)
    return library("lm_eval.tasks._yaml_loader").load_yaml(path, resolve_func=functions)


def _task(config: Json, name: str, **changes: Any) -> Any:
    whole = {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")}
    return library("lm_eval.api.task").ConfigurableTask(config=whole | changes | {"task": name})


def _gsm8k(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
    return (_task(_config("gsm8k", "gsm8k.yaml"), "gsm8k"),)


def _platinum(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
    config = _config("gsm8k_platinum", "gsm8k-platinum.yaml")
    return (_task(config, "gsm8k_platinum", training_split="train", fewshot_split="train"),)


def _plus(keep: Callable[[Any], Any]) -> Callable[[Asked, Judge], tuple[Any, ...]]:
    """GSM-Plus with the documents that `keep` selects; the few-shot examples, from GSM8K, pass unchanged."""

    def process(documents: Any) -> Any:
        return keep(documents) if "perturbation_type" in documents.column_names else documents

    def made(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
        how: Json = {"training_split": "train", "fewshot_split": "train", "process_docs": process}
        if benchmark.task == SEEDS:
            how["doc_to_target"] = "{{answer}}"
        if benchmark.task == CRITICAL:
            how |= {"process_results": _unanswered, "filter_list": [_WHOLE],
                    "metric_list": [{"metric": "exact_match", "aggregation": "mean",
                                     "higher_is_better": True}]}  # fmt: skip
        return (_task(_config("gsm_plus", "gsm_plus.yaml"), benchmark.task, **how),)

    return made


# The whole answer, since scoring looks for a statement in it, not for a number.
_WHOLE = {"name": "whole", "filter": [{"function": "take_first"}]}


def _unanswered(document: Any, answers: list[Any]) -> Json:
    """1 if the answer says that the question cannot be answered, the only right answer; else 0."""
    return {"exact_match": float(says_so(answers[0]))}


def _is_critical(document: Any) -> bool:
    return str(document["perturbation_type"]).strip().casefold() == "critical thinking"


def _is_answerable(document: Any) -> bool:
    return not _is_critical(document)


def _answerable(documents: Any) -> Any:
    return documents.filter(_is_answerable)


def _critical(documents: Any) -> Any:
    found = documents.filter(_is_critical)
    # The training split is empty if there are no few-shot examples.
    if len(documents) and not len(found):
        raise UsageError(
            "the data of gsm_plus hold no variation of the type 'critical thinking', which are the"
            " unanswerable questions; add them to the file"
        )
    return found


def _seed_questions(documents: Any) -> Any:
    """The distinct seed questions of the variations, as documents in GSM8K's form."""
    seen: dict[str, Json] = {}
    for one in _answerable(documents):
        answer = one.get("seed_solution") or ""
        whole = answer if "####" in answer else f"{answer}\n#### {one['seed_answer']}"
        seen.setdefault(one["seed_question"], {"question": one["seed_question"], "answer": whole})
    return library("datasets").Dataset.from_list(list(seen.values()))


def _bbh(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
    folder = Path(library("lm_eval").__file__).parent / "tasks" / "bbh" / "cot_zeroshot"
    found: list[Any] = []
    for member in _config("bbh", "cot_zeroshot", "_bbh_cot_zeroshot.yaml")["task"]:
        name = member.removeprefix("bbh_cot_zeroshot_")
        with chdir(folder):
            config = _config("bbh", "cot_zeroshot", f"{name}.yaml")
        plain, cut = _STEPS.subn("\nA:", config["doc_to_text"])
        if cut != 1:
            raise ValueError(f"the prompt of {member} does not end as taskvec expects")
        found.append(_task(config, f"bbh_{name}", doc_to_text=plain))
    return tuple(found)


def _humaneval(name: str, **changes: str) -> Callable[[Asked, Judge], tuple[Any, ...]]:
    def made(benchmark: Asked, judge: Judge) -> tuple[Any, ...]:
        # Functions are left unresolved: importing them would load a metric that runs code without a sandbox.
        config = _config("humaneval", "humaneval_instruct.yaml", functions=False)
        return (_task(config, name, **changes, **judged(judge)),)

    return made


_BUILDERS: dict[str, Callable[[Asked, Judge], tuple[Any, ...]]] = {
    "gsm8k": _gsm8k,
    "gsm8k_platinum": _platinum,
    "gsm_plus": _plus(_answerable),
    SEEDS: _plus(_seed_questions),
    CRITICAL: _plus(_critical),
    "sciq": lambda _, __: (_task(_config("sciq", "sciq.yaml"), "sciq"),),
    "bbh": _bbh,
    "humaneval": _humaneval("humaneval"),
    "humaneval_plus": _humaneval("humaneval_plus", dataset_path="evalplus/humanevalplus"),
}
