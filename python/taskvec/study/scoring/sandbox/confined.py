"""One side of a judgement, in a bare interpreter: `confined.py judge SETTINGS` or `… worker SETTINGS`.

The judge has the tests, and the worker has the program that the model wrote. Each side confines itself and
reports that it has; only then is anything sent to it. When a test calls the tested function, the judge asks
the worker over a pipe. Only plain data are sent in both directions. The worker never sees a test, and nothing
that it prints, patches, returns or exits with decides the verdict: the judge alone does.

This file is run by its path and uses only the standard library.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from typing import TYPE_CHECKING, Any

# The folder is on the path only for these two imports: a program's `import …` must not find files of taskvec.
sys.path.append(__file__.rpartition("/")[0])
import sandbox_messages as messages
import sandbox_walls as walls
from sandbox_messages import Channel, Lost

sys.path.pop()

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

_ANSWER_CAP = 4 << 20
_TEXT_CAP = 100
_UNREADABLE = "an answer that cannot be read"
# These exceptions end a loop silently, so raising them in the judge would let a program cut a test short.
_NOT_RAISED = (StopIteration, StopAsyncIteration)


# The judge.


class Candidate:
    """Stands for the tested function in the tests: each call is sent to the worker."""

    def __init__(self, worker: Channel) -> None:
        """Takes the channel to the worker."""
        self.worker = worker
        self.lost: Lost | None = None
        self.raised: BaseException | None = None
        self.error = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function in the worker.

        Raises:
            Lost: the worker gave no usable answer; every later call raises it too.
            Unsendable: an argument is not plain data.
            Exception: what the function raised, as the nearest built-in type.
        """
        if self.lost:
            raise self.lost
        strict = {name: messages.encode(given, strict=True) for name, given in kwargs.items()}
        call = {"args": messages.encode(list(args), strict=True), "kwargs": strict}
        try:
            return self._answer(call, [*args, *kwargs.values()])
        except Lost as lost:
            self.lost = lost
            raise

    def _answer(self, call: dict[str, Any], passed: list[Any]) -> Any:
        self.worker.send(call)
        answer = self.worker.receive(_ANSWER_CAP)
        try:
            if "changed" in answer:
                for before, after in zip(passed, messages.decode(answer["changed"]), strict=True):
                    messages.mirror(before, after)
            if "value" in answer:
                return messages.decode(answer["value"])
        except Exception:
            raise Lost(_UNREADABLE) from None
        self.raised, self.error = raised(answer)
        raise self.raised


def raised(answer: dict[str, Any]) -> tuple[Exception, str]:
    """The exception that the worker reports, as the nearest built-in type, and a line about it.

    Raises:
        Lost: the report is malformed.
    """
    try:
        (own, *bases), text = map(str, answer["raised"]), str(answer["text"])
    except (KeyError, TypeError, ValueError):
        raise Lost(_UNREADABLE) from None
    said = f"error: {_line(own, text)}"
    for name in (own, *bases):
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED):
            try:
                return kind(text), said
            except TypeError:
                # Some types need more arguments, such as UnicodeDecodeError with five.
                continue
    return Exception(text), said


def _line(name: str, text: str) -> str:
    """An exception as one printable line of limited length."""
    line = f"{name}: {text}".rstrip(": ")
    return "".join(one if one.isprintable() else " " for one in line)[:_TEXT_CAP]


def judge(job: dict[str, Any], worker: Channel) -> dict[str, Any]:
    """The verdict on one program.

    Args:
        job: its `prompt`, `completion`, `test` and `entry_point`.
        worker: the channel to a confined worker, to which nothing has been sent yet.

    Returns:
        `passed` and `reason`, with `lost` if the worker has ended; or `unusable` if the tests cannot be run.
    """
    try:
        worker.send({"source": job["prompt"] + job["completion"], "entry_point": job["entry_point"]})
        loaded = worker.receive(_ANSWER_CAP)
        if "raised" in loaded:
            return {"passed": False, "reason": raised(loaded)[1]}
        return _tested(job, Candidate(worker))
    except Lost as lost:
        return {"passed": False, "reason": str(lost), "lost": True}


def _tested(job: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    names = _helpers(job["prompt"])
    try:
        _run(job["test"], "<tests>", names)
        check = names["check"]
    except Exception as error:
        return {"unusable": _line(type(error).__name__, str(error))}
    # Set only now, so that the program cannot influence whether the tests are usable.
    names[job["entry_point"]] = candidate
    try:
        check(candidate)
    except Exception as error:
        # This is checked first, because a test may have caught the error that the worker has ended.
        if candidate.lost:
            raise candidate.lost from None
        if error is candidate.raised:
            return {"passed": False, "reason": candidate.error}
        if isinstance(error, messages.Unsendable):
            return {"unusable": _line("a value that is not plain data", str(error))}
        more = "" if isinstance(error, AssertionError) else f" ({type(error).__name__} in the tests)"
        return {"passed": False, "reason": f"wrong answer{more}"}
    if candidate.lost:
        raise candidate.lost
    return {"passed": True, "reason": "passed"}


def _helpers(prompt: str) -> dict[str, Any]:
    """The helper functions that a prompt defines, which some tests call."""
    for source in (prompt, prompt + "\n    pass\n"):
        names: dict[str, Any] = {}
        try:
            _run(source, "<prompt>", names)
        except Exception:
            continue
        return names
    return {}


# The worker.


def work(judge: Channel) -> None:
    """Loads the program that the judge sends, and answers the judge's calls until it closes the pipe."""
    job = judge.receive()
    # As in lm-eval's code_eval, `__name__` is not "__main__".
    names: dict[str, Any] = {}
    try:
        _run(job["source"], "<program>", names)
        if job["entry_point"] not in names:
            raise NameError(f"name {job['entry_point']!r} is not defined")
        function = names[job["entry_point"]]
    except BaseException as error:
        judge.send(_told(error))
        return
    judge.send({"loaded": True})
    while True:
        judge.send(_answered(function, judge.receive()))


def _answered(function: Callable[..., Any], call: dict[str, Any]) -> dict[str, Any]:
    try:
        args = messages.decode(call["args"])
        kwargs = {name: messages.decode(given) for name, given in call["kwargs"].items()}
        passed = [*args, *kwargs.values()]
        before = messages.encode(passed)
        try:
            answer: dict[str, Any] = {"value": messages.encode(function(*args, **kwargs))}
        except BaseException as error:
            answer = _told(error)
        after = messages.encode(passed)
        return answer if after == before else {**answer, "changed": after}
    except BaseException as error:
        return _told(error)


def _told(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:_TEXT_CAP]
    except BaseException:
        text = ""
    return {"raised": [kind.__name__ for kind in type(error).__mro__], "text": text}


# Both.


def _run(source: str, name: str, names: dict[str, Any]) -> None:
    # `dont_inherit`, or this file's future import would also apply, and leave annotations unevaluated.
    exec(compile(source, name, "exec", dont_inherit=True), names)


class Packages:
    """An import finder for the few packages outside the standard library that may be imported."""

    def __init__(self, folders: dict[str, str]) -> None:
        """Takes the folder of each package, by its name."""
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Implements importlib's finder protocol; Python finds the modules inside a package by itself."""
        if path is not None or name not in self.folders:
            return None
        from importlib.util import spec_from_file_location

        folder = self.folders[name]
        return spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])


def main(arguments: list[str]) -> None:
    """Confines this process, reports it, and does its part of the judgement."""
    side, settings = arguments[0], json.loads(arguments[1])
    first, *others = (Channel(*pair) for pair in settings["channels"])
    sys.argv[:] = [""]
    sys.meta_path.append(Packages(settings["packages"]))  # pyright: ignore[reportArgumentType]
    try:
        walls.confine(settings["readable"], settings["cpu_seconds"], settings["memory"])
    except walls.Unavailable as error:
        first.send({"refused": str(error)})
        return
    # The judge forwards the worker's report, so that the job is sent only after both are confined.
    said = others[0].receive() if side == "judge" else {"confined": True}
    first.send(said)
    if side == "worker":
        work(first)
    elif said.get("confined"):
        first.send(judge(first.receive(), others[0]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Lost:
        pass
    finally:
        # Ends without running exit handlers, which a program may have installed.
        os._exit(0)
