"""Applies a perturbation to lm-eval tasks that are already built; it changes only the evaluated questions.

Few-shot examples, options, description and target stay the same byte for byte, even if the examples are drawn
from the same documents. Only the kind `options` changes the target, together with its option.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ...environment import library
from .code import docstring
from .fields import answer, choices, fixed, prompt, question_fields, texts
from .kinds import KINDS, generator
from .options import reordered
from .text import Around, prose, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from ....records import Json
    from .kinds import Kind

FEWEST = 50
"""The least number of documents of a task to try, even if fewer are evaluated."""
LEAST = 0.8
"""The share of a benchmark's documents that a perturbation must change."""

# A number, or a worked solution that ends with the number that is compared.
_NUMBER_AT_END = re.compile(r"(?:^|[\s$#=])-?\$?\d[\d,]*(?:\.\d+)?\.?\s*$")


@dataclass(frozen=True, slots=True)
class Touched:
    """What a perturbation did to the evaluated documents, by (task name, doc_id of lm-eval)."""

    documents: dict[tuple[str, int], bool]
    """Whether the document was changed."""
    doc_hashes: dict[tuple[str, int], str]
    """lm-eval's `doc_hash` of the unchanged document."""

    @property
    def share(self) -> float:
        """The share of documents that were changed."""
        return sum(self.documents.values()) / max(1, len(self.documents))


def apply(
    tasks: Iterable[Any], kind: str, *, benchmark: str, limit: int | None = None, seed: int = 0
) -> Touched:
    """Perturbs the questions of a benchmark's tasks, in place.

    Args:
        tasks: lm-eval's `ConfigurableTask` objects; their few-shot examples do not change.
        kind: a key of `KINDS`.
        benchmark: the benchmark's id, for error messages.
        limit: number of documents of each task that are evaluated; None for all.
        seed: the seed of the study.

    Raises:
        UsageError: there is no such kind, it does not fit code, the question cannot be determined, or fewer
            than 80 % of the documents can be changed. The tasks are then not changed.
    """
    if kind not in KINDS:
        raise UsageError(
            f"benchmark {benchmark!r}: there is no perturbation {kind!r}; choose one of {', '.join(KINDS)}"
        )
    made = [(task, *_perturbed(task, kind, benchmark, limit, seed)) for task in tasks]
    looked_at = [was for _, _, _, marks in made for was in marks]
    if sum(looked_at) < LEAST * len(looked_at):
        raise UsageError(
            f"benchmark {benchmark!r}: perturbation {kind} does not fit this task: it changes"
            f" {sum(looked_at)} of {len(looked_at)} documents, and {LEAST:.0%} are needed; choose another"
            " perturbation"
        )
    if not any(was for _, _, _, marks in made for was in marks[:limit]):
        raise UsageError(
            f"benchmark {benchmark!r}: perturbation {kind} changes none of the documents within limit;"
            " raise limit"
        )
    touched = Touched({}, {})
    for task, clean, documents, marks in made:
        for at, was in enumerate(marks[:limit]):
            touched.documents[task.task_name, at] = was
            touched.doc_hashes[task.task_name, at] = doc_hash(clean[at])
        evaluated = len(clean) if limit is None else limit
        _install(task, clean, documents[:evaluated] + clean[evaluated:])
    return touched


def doc_hash(document: Json) -> str:
    """The `doc_hash` that lm-eval gives a document in its samples."""
    utils: Any = library("lm_eval.utils")
    text = json.dumps(document, indent=2, default=utils.handle_non_serializable, ensure_ascii=False)
    return utils.hash_string(text)


def _perturbed(
    task: Any, name: str, benchmark: str, limit: int | None, seed: int
) -> tuple[list[Json], list[Json], list[bool]]:
    """The original documents, the perturbed ones, and for each document tried whether it was changed."""
    kind = KINDS[name]
    clean = [dict(one) for one in task.eval_docs]
    fields = question_fields(task, clean, benchmark)
    code = getattr(task, "UNSAFE_CODE", False) or docstring(clean[0][fields[-1]]) is not None
    if code and kind.code is None:
        fitting = " or ".join(one for one, other in KINDS.items() if other.code is not None)
        raise UsageError(
            f"benchmark {benchmark!r}: perturbation {name} does not fit the code of task {task.task_name};"
            f" choose {fitting}"
        )
    vocabulary = frozenset(word for one in clean for text in texts(one) for word in words_of(text))
    documents, marks = list(clean), list[bool]()
    # A few documents are too few to tell whether a perturbation fits the task.
    looked_at = None if limit is None else max(limit, FEWEST)
    for at, document in enumerate(clean[:looked_at]):
        rng = generator(seed, name, doc_hash(document))
        changed = (
            reordered(task, document, fields[-1], rng)
            if kind.prose is None
            else _changed(task, document, fields, kind, bool(code), vocabulary, rng)
        )
        marks.append(changed is not None)
        if changed is not None:
            documents[at] = changed
    return clean, documents, marks


def _changed(
    task: Any,
    document: Json,
    fields: Sequence[str],
    kind: Kind,
    code: bool,
    vocabulary: frozenset[str],
    rng: Random,
) -> Json | None:
    gold = str(answer(task, document))
    is_number = _NUMBER_AT_END.search(gold) is not None
    if kind is KINDS["number-words"] and not (is_number and task.OUTPUT_TYPE == "generate_until"):
        return None
    change = kind.code if code else kind.prose
    filled = [one for one in fields if document[one].strip()]
    if change is None or not filled:
        return None
    chosen = {"all": filled, "first": filled[:1], "context": (filled[:-1] or filled)[-1:]}[kind.where]
    # A worked solution repeats words of the question. Only its number is compared, so its words may change.
    options = [*(choices(task, document) or ()), *(document[one][prose(document[one]) :] for one in filled)]
    spared = words_of("\n".join(options if is_number else [*options, gold]))
    changed = dict(document)
    for name in chosen:
        after = "\n".join(document[one] for one in filled[filled.index(name) + 1 :])
        around = Around("\n".join(texts(document)), after, frozenset(spared), vocabulary)
        changed[name] = change(document[name], rng, around) or document[name]
    # A template may undo the change, and a function of the task may make the answer depend on the question.
    seen = prompt(task, document) != prompt(task, changed)
    return changed if seen and fixed(task, document) == fixed(task, changed) else None


def _install(task: Any, clean: list[Json], documents: list[Json]) -> None:
    """Makes a task evaluate `documents`, but draw its few-shot examples as for `clean`."""
    # Set on this object only; lm-eval gets the evaluated documents from one of these two methods.
    setattr(task, "test_docs" if task.has_test_docs() else "validation_docs", lambda: documents)
    if not hasattr(task, "sampler"):
        return
    # If few-shot examples come from the evaluated documents, the sampler leaves out the document that is
    # asked. It compares contents, so it must be given the unchanged document.
    was = {id(new): old for new, old in zip(documents, clean, strict=True)}
    sample = task.sampler.sample

    def sample_as_before(n: int, eval_doc: Json | None = None, **rest: Any) -> Any:
        return sample(n, eval_doc=None if eval_doc is None else was[id(eval_doc)], **rest)

    task.sampler.sample = sample_as_before
