"""Scores an arm from a written checkpoint in a separate process: `python -m taskvec.study.worker JOB`.

This is for backends that load files and need their own Python environment, as vLLM does, which requires
another version of torch. That environment also needs taskvec and lm-eval. The sample rows have the same
fields as those of in-memory arms; a test shows that with lm-eval's `hf` model the answers are the same too.
The path through vLLM itself is untested, because vLLM could not be installed where taskvec was written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict, deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import verbs
from ...errors import MismatchError, TaskvecError, UsageError
from .. import environment
from ..rundir.answers import Answers
from ..rundir.run_folder import RunFolder, write
from ..spec.sections import Study, VllmBackend
from .backend import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...records import Json
    from ...vector import Vector
    from ..scoring.tasks import Loaded
    from ..spec.arms import Arm
    from .preflight import Ready


def zero_changes_nothing(ready: Ready, folder: RunFolder, vector: Vector) -> None:
    """Writes the target with α = 0 to files and checks that every weight equals the target's.

    Raises:
        MismatchError: a tensor differs.
    """
    where = folder.path / "checkpoints" / "alpha-0"
    try:
        verbs.apply(ready.target.path, vector, where, alpha=0.0, sync=False, overwrite=True)
        found = verbs.diff(ready.target.path, where)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    if not found.identical:
        raise MismatchError(
            f"{ready.target.path} changes with α = 0; this is a bug in taskvec, please report it"
        )


def score_apart(
    ready: Ready,
    folder: RunFolder,
    arm: Arm,
    missing: list[Loaded],
    vector: Vector | None,
    tell: Callable[[str, str], None],
    report: Callable[[Arm, Loaded, int], None],
) -> None:
    """Writes the checkpoint of an arm, scores it in the backend's environment, and removes it.

    Args:
        ready: the study.
        folder: the folder of the run, into which the worker writes its samples.
        arm: the arm.
        missing: the benchmarks to score.
        vector: the vector that the arm adds to the target; None for the target itself and for donors.
        tell: called as `tell(arm, activity)`.
        report: called as `report(arm, benchmark, documents_done)` after each batch.

    Raises:
        TaskvecError: the error with which the worker ended.
    """
    backend = ready.study.backend
    python, args = (backend.vllm.python, backend.vllm.args) if isinstance(backend, VllmBackend) else ("", {})
    where = ready.target.path
    if arm.kind == "donor":
        where = ready.donors[0 if arm.id == "minuend" else 1].path
    made: Json = {"effect": None, "tensors": None, "seconds": 0.0}
    if vector is not None:
        where = str(folder.checkpoint(arm))
        tell(arm.label, "writing its checkpoint")
        result = verbs.apply(
            ready.target.path, vector, where, alpha=arm.alpha or 0.0, rounding=ready.study.rounding,
            sync=False, overwrite=True,
        ).to_json()  # fmt: skip
        manifest = json.loads((Path(where) / "taskvec.json").read_bytes())
        tensors = [{**one, **one["effect"]} for one in manifest["tensors"] if one.get("effect")]
        made = {"effect": result["effect"], "tensors": tensors, "seconds": result["seconds"]}
    folder.write_arm(arm, made)
    job = job_for(ready, folder, arm, missing, where, "vllm", args)
    try:
        by_id = {one.benchmark.id: one for one in missing}
        _run(python, job, folder, lambda name, done: report(arm, by_id[name], done))
    finally:
        shutil.rmtree(folder.checkpoint(arm), ignore_errors=True)


def job_for(
    ready: Ready,
    folder: RunFolder,
    arm: Arm,
    missing: list[Loaded],
    checkpoint: str,
    model: str,
    args: Json,
) -> Json:
    """The job of a worker as JSON: everything that affects an answer."""
    return {
        "study": ready.study.to_json(),
        "benchmarks": [one.benchmark.id for one in missing],
        "allow_code_execution": ready.judge.allowed,
        "arm": arm.to_json(),
        "run": str(folder.path),
        "checkpoint": checkpoint,
        "target": ready.target.path,
        "model": model,
        "args": args,
        "device": ready.device,
        "dtype": ready.dtype,
    }


def _run(python: str, job: Json, folder: RunFolder, tell: Callable[[str, int], None]) -> None:
    path, log = folder.path / "job.json", folder.path / "worker.log"
    write(path, json.dumps(job))
    command = [python, "-m", "taskvec.study.worker", str(path)]
    with (
        log.open("w") as errors,
        # The worker inherits the run's lock: if this process is killed, no other run can start while the
        # worker still writes.
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, pass_fds=folder.held
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if line.startswith('{"benchmark"'):
                    said = json.loads(line)
                    tell(said["benchmark"], said["done"])
        except BaseException:
            process.terminate()
            raise
    path.unlink(missing_ok=True)
    if process.returncode:
        more = f" (the worker's whole output is in {log})"
        raise failed(process.returncode, log.read_text(errors="replace"), more)


def _about(device: str) -> Json:
    environment.prepare(offline=False, needed=environment.SCORING)
    found = environment.about(device)
    try:
        return found | {"versions": found["versions"] | {"vllm": version("vllm")}}
    except PackageNotFoundError:
        raise UsageError("vllm is not installed; name the Python of an environment that has it") from None


def work(job: Json) -> None:
    """Scores one arm on the benchmarks of a job; writes the sample file of each cell when it is finished."""
    study = Study.model_validate(job["study"])
    environment.prepare(offline=study.offline, needed=environment.SCORING)
    from ..scoring.code import Judge
    from ..scoring.prompts import read_tokenizer
    from ..scoring.score import score
    from ..scoring.tasks import load
    from ..spec.arms import Arm
    from .batch_size import set_batch_size

    arm, folder = Arm(**job["arm"]), RunFolder(job["run"])
    with environment.quiet():
        model = (_vllm if job["model"] == "vllm" else _hf)(job, study, read_tokenizer(job["target"]))
    line = study.think if arm.prompt == "think" else None
    judge = Judge(allowed=job["allow_code_execution"])
    for loaded in load(study, judge, job["benchmarks"]):

        def tell(done: int, _: int, name: str = loaded.benchmark.id) -> None:
            sys.__stdout__.write(json.dumps({"benchmark": name, "done": done}) + "\n")  # pyright: ignore
            sys.__stdout__.flush()  # pyright: ignore[reportOptionalMemberAccess]

        if job["model"] != "vllm":
            set_batch_size(model, loaded, study, folder)
        # vLLM forms its own batches and returns all answers together, so none are written before the end.
        with Answers(folder.answers(arm, loaded.benchmark)) as model.answers:
            rows = score(model, loaded, line=line, progress=tell)
        folder.write_samples(arm, loaded.benchmark, rows)


def _hf(job: Json, study: Study, tokenizer: Any) -> Any:
    from ..scoring.loading import generation_config
    from ..scoring.study_lm import StudyLM

    how = {"device": job["device"], "dtype": job["dtype"], **job["args"]}
    model = StudyLM(job["checkpoint"], tokenizer, **how)
    model.model.generation_config = generation_config(job["target"])
    return model


def _vllm(job: Json, study: Study, tokenizer: Any) -> Any:
    from ..scoring.prompts import ask
    from ..scoring.study_lm import Chosen, Generated

    base: Any = environment.library("lm_eval.api.registry").get_model("vllm")

    class VllmLM(base):
        line: str | None = None
        records: dict[tuple[str, int], Generated | Chosen]
        answers: Answers | None = None
        progress: Callable[[int, int], None] | None = None
        rows: dict[tuple[int, ...], deque[Generated]]

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return ask(tokenizer, chat_history, line=self.line, add_generation_prompt=add_generation_prompt)

        def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
            parent: Any = super()
            start = time.perf_counter()
            outputs = parent._model_generate(requests, generate, sampling_params)
            seconds = (time.perf_counter() - start) / len(requests)
            for request, output in zip(requests, outputs, strict=True) if generate else ():
                made = output.outputs[0]
                cut = made.finish_reason == "length"
                row = Generated(made.text, len(made.token_ids), cut, len(request), seconds)
                self.rows[tuple(request)].append(row)
            return outputs

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self.rows = defaultdict(deque)
            parent: Any = super()
            answers = parent.generate_until(requests, disable_tqdm=True)
            for request, prompt in zip(
                requests, self.tok_encode([one.args[0] for one in requests]), strict=True
            ):
                self.records[request.task_name, request.doc_id] = self.rows[tuple(prompt)].popleft()
            return answers

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            parent: Any = super()
            start = time.perf_counter()
            answers = parent.loglikelihood(requests, disable_tqdm=True)
            each = (time.perf_counter() - start) / len(requests)
            for document, count in Counter((one.task_name, one.doc_id) for one in requests).items():
                self.records[document] = Chosen(count * each)
            return answers

    how = {"tokenizer": job["target"], "dtype": job["dtype"], "batch_size": study.batch_size, **job["args"]}
    return VllmLM(pretrained=job["checkpoint"], **how)


def main(argv: list[str]) -> int:
    """Does the job in the file `argv[0]`; with `--about DEVICE`, prints versions and device instead."""
    try:
        if argv[0] == "--about":
            sys.stdout.write(json.dumps(_about(argv[1])) + "\n")
            return 0
        work(json.loads(Path(argv[0]).read_bytes()))
    except TaskvecError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
