"""Checks a study before any weights are read; `study check` and every run begin with this."""

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


# Entries of a benchmark that affect answers or scores, besides the prompts themselves.
_ASKED = ("task", "metric", "filter", "readings", "shots", "max_new_tokens", "limit", "perturbation")


@dataclass(frozen=True, slots=True)
class Ready:
    """A study that has been checked: its inputs fit, tasks and data are available, prompts are valid."""

    study: Study
    text: str
    """The text of the study file."""
    target: Ref
    donors: tuple[Ref, ...]
    """Minuend and subtrahend, or the vector."""
    plan: CheckResult
    arms: tuple[Arm, ...]
    loaded: tuple[Loaded, ...]
    tokenizer: Any
    device: str
    """The name of the torch device."""
    dtype: str
    run: Json
    """The content of `run.json`."""
    judge: Judge
    """Runs programs that the model wrote, if there are any and the user allows it."""

    def cells(self) -> list[tuple[Arm, Loaded]]:
        """The pairs of arm and benchmark to score."""
        by_id = {one.benchmark.id: one for one in self.loaded}
        return [(arm, by_id[benchmark.id]) for arm, benchmark in cells(self.study)]

    @property
    def generations(self) -> int:
        """Number of answers to generate, over all arms."""
        return sum(loaded.n for _, loaded in self.cells() if loaded.kind == "generate")

    @property
    def decisions(self) -> int:
        """Number of choices to make, over all arms."""
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
    """Reads a study and checks everything that needs no weights.

    Args:
        study: the name or path of the study.
        offline: use no network, whatever the study file says.
        device: the device, instead of the study file's.
        limit: the most documents of each task.
        target: the target, instead of the study file's.
        consent: whether code that the model wrote may run; None for a check, which runs none.
        command: the command line to record.

    Raises:
        UsageError: the study is not valid, the extra `eval` is not installed, or code that the model wrote
            is not allowed or cannot be sandboxed here.
        MismatchError: the inputs do not fit together, or the target has no chat template.
        StorageError: an input or the data of a benchmark is not available.
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
        # This reads headers only, before anything is downloaded.
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
        # Checked before hours of scoring; trying the sandbox runs no code of a model.
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
        # Published figures are for the study's own target.
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
            # Not every message names its tensor.
            problem.message
            if problem.tensor is None or problem.tensor in problem.message
            else f"tensor `{problem.tensor}`: {problem.message}"
            for problem in plan.problems
        ]
        more = f" (and {len(others)} more: `taskvec check` lists them)" if others else ""
        raise MismatchError(f"the study's inputs do not fit together: {first}{more}")
    # Check that the arms with another α are possible, which would otherwise fail after hours of scoring.
    for arm in arms(study):
        if arm.alpha not in (None, study.alpha):
            dry_run.check(target, *donors, alpha=arm.alpha, rounding=study.rounding)
    return plan


def _config(target: Ref) -> tuple[int, str]:
    """The length of the target's context in tokens, and the dtype of its weights."""
    try:
        config: Any = environment.library("transformers").AutoConfig.from_pretrained(target.path)
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise MismatchError(
            f"{target.path}: transformers cannot load it ({said}); give a target that transformers can load"
        ) from error
    dtype = config.dtype or "float32"
    context = environment.library("lm_eval.models.utils").resolve_max_length(config)
    return context, str(dtype).removeprefix("torch.")


def _generation(study: Study, target: Ref) -> Json:
    """The settings of the target's generation config, used and unused; vLLM uses none of them."""
    from ..scoring.loading import generation_settings

    with environment.quiet():
        found = generation_settings(target.path)
    return found if study.backend == "hf" else {"used": {}, "unused": found["unused"] | found["used"]}


def _about(study: Study) -> Json:
    """Versions and device, including those of the backend's own environment if it has one."""
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
    # File names only, since paths differ between machines.
    for entry, one in zip(whole["benchmarks"], study.benchmarks, strict=True):
        if isinstance(one.data, dict):
            entry["data"] = {split: Path(file).name for split, file in one.data.items()}
        else:
            entry["data"] = one.data and Path(one.data).name
    if study.donors is None:
        whole["vector"] = donors[0].name
    else:
        whole["donors"] = {role: ref.name for role, ref in zip(roles, donors, strict=True)}
    # The identity holds only what affects answers. It holds no names or paths, and no list of arms, so that
    # arms may be added later.
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
