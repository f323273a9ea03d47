"""Plans a job in parts, runs its parts on any machine that sees its folders, and commits it.

The functions raise the errors of the verb that the job carries out (`taskvec.verbs`), and besides:

- `MismatchError`: parts are missing at the commit, a record is of another job, or this is another version of
  taskvec than the plan's;
- `CorruptError`: an input or the plan was changed since the job was planned;
- `StorageError`: another worker has the part, or the job's folder is gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import taskvec._core as _core

from ..errors import UsageError
from ..options import Io, Keywords, make_options, output_path
from ..results import WriteResult
from .asked import Asked
from .results import JobPlan, JobStatus, PartResult

if TYPE_CHECKING:
    from ..inputs.refs import Folder
    from ..records import Json


class How(TypedDict, total=False):
    """How the work is done; none of it changes the output. What is left out is as the job was planned."""

    memory: int | str | None
    threads: int | None
    io: Io


_HOW = tuple(How.__annotations__)


@dataclass(frozen=True, slots=True)
class Job:
    """A job in its folder, which all machines see under the same path."""

    folder: str
    """Its absolute path."""
    parts: int
    """How many there are; they are counted from 0."""
    asked: Asked
    planned: JobPlan | None
    """What `plan` found; None if the job was opened."""

    def run(self, part: int, *, progress: _core.Progress | None = None, **how: Unpack[How]) -> PartResult:
        """Does one part, unless it is done: on any machine, in any order, as often as one likes.

        An attempt that was stopped is continued, on whatever machine it was.
        """
        done = _core.job_already(self.folder, _number(part))
        if done is None:
            with self._with(how).opened(progress) as inputs:
                done = _core.job_run(self.folder, part, inputs.request, inputs.options, progress)
        return PartResult.from_json(json.loads(done))

    def status(self) -> JobStatus:
        """What is done and what is missing; reads no inputs."""
        return JobStatus.from_json(json.loads(_core.job_status(self.folder)))

    def commit(
        self, *, verify: bool = False, progress: _core.Progress | None = None, **how: Unpack[How]
    ) -> WriteResult:
        """Makes the output, once all parts are done: byte for byte that of a single run.

        With `verify`, all weight files are read and compared with their records first. If the job is
        committed already, the result is that of the first commit.
        """
        if (done := _core.job_committed(self.folder)) is not None:
            return WriteResult.from_json(json.loads(done))
        with self._with(how).opened(progress) as inputs:
            told = [*inputs.notes, *inputs.card.notes], [*inputs.warnings]
            answer = _core.job_commit(self.folder, verify, inputs.request, inputs.options, told, progress)
            result: Json = json.loads(answer)
            result["warnings"] += inputs.session.unchecked()
            return WriteResult.from_json(result)

    def _with(self, how: How) -> Asked:
        if unknown := sorted(how.keys() - set(_HOW)):
            raise UsageError(f"{unknown[0]} is decided by the plan; what a run may set is {', '.join(_HOW)}")
        given: Keywords = {**how}
        return self.asked.done_by(make_options(given), how)


def plan(
    verb: str,
    *inputs: Any,
    out: Folder,
    parts: int,
    job: Folder,
    **more: Any,
) -> Job:
    """Plans what `verb` would write to the folder `out`, in `parts` parts; reads headers, no weights.

    `verb` is `"transfer"`, `"apply"`, `"graft"` or `"extract"`; `inputs` and `more` are its arguments and
    options. The plan is in the new folder `job`. All machines must see inputs, `out` and `job` under the same
    paths; refs on the Hub are pinned to their commit. The same plan again is the same job.

    A vector is written packed; a dense one is refused, since its exceptions are in one file.

    Raises:
        UsageError: There are more parts than the output has files, or a folder is in use.
    """
    keywords: Any = {name: more.pop(name) for name in Keywords.__annotations__ if name in more}
    asked = Asked.of(verb, inputs, make_options(keywords), more)
    where, folder = str(Path(output_path(out)).absolute()), _job_folder(job)
    with asked.opened() as opened:
        kept = json.dumps(asked.to_json(opened.request))
        answer = _core.job_plan(
            folder, opened.request, where, _number(parts), opened.options, opened.card.text, kept
        )
        found: Json = json.loads(answer)
        found["notes"] += [*opened.notes, *opened.card.notes]
        found["warnings"] += [*opened.warnings, *opened.session.unchecked()]
        planned = JobPlan.from_json(found)
    return Job(folder, planned.parts, Asked.from_json(json.loads(kept)), planned)


def open_job(job: Folder) -> Job:
    """Opens a job that was planned, on this machine or on another."""
    folder = _job_folder(job)
    asked, parts = _core.job_asked(folder)
    return Job(folder, parts, Asked.from_json(json.loads(asked)), None)


def _job_folder(job: Folder) -> str:
    if not str(job):
        raise UsageError("the name of the job's folder is empty; give the path of a new folder")
    return str(Path(job).expanduser().absolute())


def _number(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
        raise UsageError(f"{given!r} is not a number of parts; parts are whole numbers from 0 on")
    return given
