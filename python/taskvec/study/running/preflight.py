"""All that can be known of a study before a weight is read: how `study check` and every run begin."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import dry_run
from ...errors import MismatchError, UsageError
from ...inputs.session import Session, pinned
from ...options import Options
from .. import environment
from ..rundir.digests import described
from ..rundir.run_folder import SCHEMA
from ..scoring.asked_digest import asked_digest
from ..spec.announced import primary
from ..spec.arms import Arm, arms, cells
from ..spec.asked import NO_CONSENT, asked
from ..spec.study_file import load
from .backend import ask_about

if TYPE_CHECKING:
    from ...check_result import CheckResult
    from ...inputs.refs import Ref
    from ...records import Json
    from ..scoring.code import Judge
    from ..scoring.tasks import Loaded
    from ..spec.sections import Benchmark, Study


# What of a benchmark's entry decides an answer or a score, beside the prompts themselves.
_ASKED = ("task", "metric", "filter", "readings", "shots", "max_new_tokens", "limit", "perturbation")


@dataclass(frozen=True, slots=True)
class Ready:
    """A study whose inputs fit, whose tasks and data are there, and whose prompts are sound."""

    study: Study
    text: str
    """The study file."""
    target: Ref
    donors: tuple[Ref, ...]
    """Minuend and subtrahend, or the vector."""
    plan: CheckResult
    arms: tuple[Arm, ...]
    loaded: tuple[Loaded, ...]
    tokenizer: Any
    device: str
    """As torch names it."""
    dtype: str
    run: Json
    """What `run.json` says."""
    judge: Judge
    """Runs programs that the model wrote, if there are any and the user allows it."""

    def cells(self) -> list[tuple[Arm, Loaded]]:
        """What is to be scored."""
        by_id = {one.benchmark.id: one for one in self.loaded}
        return [(arm, by_id[benchmark.id]) for arm, benchmark in cells(self.study)]

    @property
    def generations(self) -> int:
        """Answers to generate, over all arms."""
        return sum(loaded.n for _, loaded in self.cells() if loaded.kind == "generate")

    @property
    def decisions(self) -> int:
        """Choices to make, over all arms."""
        return sum(loaded.n for _, loaded in self.cells() if loaded.kind == "choice")


def look(
    study: str | Path,
    *,
    offline: bool = False,
    device: str | None = None,
    limit: int | None = None,
    target: str | None = None,
    consent: bool | None = None,
    command: str | None = None,
) -> Ready:
    """Reads a study and checks all that needs no weights.

    Args:
        study: name or path.
        offline: allow no network, whatever the study says.
        device: instead of the study's.
        limit: documents of each task at most.
        target: instead of the study's.
        consent: whether code that the model wrote may run; None where nothing is to be run.
        command: the command line to write down.

    Raises:
        UsageError: the study asks for something that makes no sense, the extra `eval` is missing, or code
            would run that is not allowed to, or cannot be confined here.
        MismatchError: the inputs do not fit together, or the target cannot chat.
        StorageError: the data of a benchmark cannot be had.
    """
    read, text = load(study)
    read = _changed(read, device, limit, target)
    if consent is False and any(one.known and one.known.code for one in asked(read)):
        raise UsageError(NO_CONSENT)
    announced = primary(read)
    environment.prepare(offline=offline or read.offline)
    if read.backend != "hf" and shutil.which(python := read.backend.vllm.python) is None:
        raise UsageError(f"backend: python {python} cannot be run; name the Python that has vLLM")
    with pinned():
        # From headers alone, before anything is downloaded.
        plan = _fits(read)
        with Session(Options()) as session:
            whole, *others = map(session.whole, (read.target, *_donors(read)))
    donors = tuple(others)
    from ..scoring import prompts, tasks
    from ..scoring.code import Judge

    with environment.quiet():
        tokenizer = prompts.read_tokenizer(whole.path)
        context, kept = _config(whole)
        found = _about(read)
        judge = Judge(allowed=bool(consent))
        loaded = tasks.load(read, judge)
    if any(one.judge for one in loaded):
        # Before any answer is paid for; trying the sandbox runs nothing of a model's.
        if consent is None:
            judge.probe()
        else:
            judge.open()
    with environment.quiet():
        line = read.think if read.arms.think else None
        digests = {
            one.benchmark.id: asked_digest(prompts.check(one, tokenizer, context, line), one)
            for one in loaded
        }
    where = found["device"]
    dtype = (
        kept if read.dtype == "auto" and where != "cpu" else "float32" if read.dtype == "auto" else read.dtype
    )
    return Ready(
        read, text, whole, donors, plan, arms(read), loaded, tokenizer, where, dtype,
        _run(read, text, whole, donors, loaded, digests, found, dtype)
        | {"primary": announced, "command": command, "sandbox": judge.described}
        | {"generation": _generation(read, whole)}, judge,
    )  # fmt: skip


def _changed(study: Study, device: str | None, limit: int | None, target: str | None) -> Study:
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit} is not a number of documents; give 1 or more")

    def fewer(one: Benchmark) -> Benchmark:
        return one.model_copy(update={"limit": min(limit or 1, one.limit or limit or 1)})

    update: Json = {} if limit is None else {"benchmarks": [fewer(one) for one in study.benchmarks]}
    given = {"device": device, "target": target}
    if target is not None:
        # What others found is of the study's own target.
        update |= {"published": None}
    return study.model_copy(update=update | {key: one for key, one in given.items() if one is not None})


def _donors(study: Study) -> tuple[str, ...]:
    pair = study.donors
    return (study.vector or "",) if pair is None else (pair.minuend, pair.subtrahend)


def _fits(study: Study) -> CheckResult:
    target, donors = study.target, _donors(study)
    plan = dry_run.check(target, *donors, alpha=study.alpha, rounding=study.rounding)
    if not plan.compatible:
        first, *others = [
            # Of a shape the message alone does not say whose it is.
            problem.message
            if problem.tensor is None or problem.tensor in problem.message
            else f"tensor `{problem.tensor}`: {problem.message}"
            for problem in plan.problems
        ]
        more = f" (and {len(others)} more: `taskvec check` lists them)" if others else ""
        raise MismatchError(f"the study's inputs do not fit together: {first}{more}")
    # Of the others only whether there can be such an arm: found out after hours of scoring otherwise.
    for arm in arms(study):
        if arm.alpha not in (None, study.alpha):
            dry_run.check(target, *donors, alpha=arm.alpha, rounding=study.rounding)
    return plan


def _config(target: Ref) -> tuple[int, str]:
    """How many tokens the target can hold, and the dtype that it is kept in."""
    try:
        config: Any = environment.library("transformers").AutoConfig.from_pretrained(target.path)
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise MismatchError(
            f"{target.path}: transformers cannot open it ({said}); a study needs a target that it opens"
        ) from error
    dtype = config.dtype or "float32"
    context = environment.library("lm_eval.models.utils").resolve_max_length(config)
    return context, str(dtype).removeprefix("torch.")


def _generation(study: Study, target: Ref) -> Json:
    """What of the target's generation config acts on answers: with vLLM, lm-eval gives its own settings."""
    from ..scoring.loading import generation_settings

    with environment.quiet():
        found = generation_settings(target.path)
    return found if study.backend == "hf" else {"used": {}, "unused": found["unused"] | found["used"]}


def _about(study: Study) -> Json:
    """Versions and device: of the backend's own environment too, if it has one."""
    if study.backend == "hf":
        return environment.about(study.device)
    theirs = ask_about(study.backend.vllm.python, study.device)
    named = {f"worker {name}": one for name, one in theirs["versions"].items()}
    return theirs | {"versions": environment.about("cpu")["versions"] | named}


def _run(
    study: Study, text: str, target: Ref, donors: tuple[Ref, ...], loaded: tuple[Loaded, ...],
    digests: dict[str, str], found: Json, dtype: str,
) -> Json:  # fmt: skip
    roles = ("vector",) if study.donors is None else ("minuend", "subtrahend")
    inputs = [described(role, ref) for role, ref in zip(("target", *roles), (target, *donors), strict=True)]
    versions, named = found["versions"], found["named"]
    whole: Json = study.to_json() | {"target": target.name, "tasks": study.tasks and Path(study.tasks).name}
    # Names, not where this machine keeps them.
    for entry, one in zip(whole["benchmarks"], study.benchmarks, strict=True):
        if isinstance(one.data, dict):
            entry["data"] = {split: Path(file).name for split, file in one.data.items()}
        else:
            entry["data"] = one.data and Path(one.data).name
    if study.donors is None:
        whole["vector"] = donors[0].name
    else:
        whole["donors"] = {role: ref.name for role, ref in zip(roles, donors, strict=True)}
    # What things are called and where they lie changes no answer, and an arm changes none of another's: arms
    # may be added later.
    telling = ("schema", "alpha", "think", "backend", "batch_size", "rounding")
    identity: Json = {
        "study": {key: value for key, value in whole.items() if key in telling},
        "inputs": {one["role"]: one["digest"] for one in inputs},
        "benchmarks": {
            one.benchmark.id: {key: value for key, value in one.to_json().items() if key in _ASKED}
            | {"asked": digests[one.benchmark.id]}
            for one in loaded
        },
        "versions": versions,
        "device": named,
        "dtype": dtype,
    }
    return {
        "schema": SCHEMA,
        "identity": identity,
        "study": whole,
        "versions": versions,
        "device": named,
        "dtype": dtype,
        "inputs": inputs,
        "arms": [arm.to_json() for arm in arms(study)],
        "benchmarks": [one.to_json() for one in loaded],
        "study_digest": hashlib.sha256(text.encode()).hexdigest()[:32],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
