"""One side of a judgement, in a bare interpreter: `confined.py judge SETTINGS` or `… worker SETTINGS`.

The judge holds the tests, and the worker what the model wrote. Both confine themselves before they are sent
anything, and say so; without that word nothing is sent. A test that calls the tested function makes the judge
ask the worker over a pipe, and both ways only plain data cross. The worker never sees a test, and nothing
that it prints, patches, returns or exits with is a verdict: that is made by the judge alone.

This file is run by its path and needs the standard library alone.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from typing import TYPE_CHECKING, Any

# The two files beside this one, and then never again: a model's `import tasks` must not find ours.
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
# Those that end a loop in silence would let a program cut a test short.
_NOT_RAISED = (StopIteration, StopAsyncIteration)


# The judge.


class Candidate:
    """The tested function, as the tests see it: each call is answered by the worker."""

    def __init__(self, worker: Channel) -> None:
        """Takes the channel to the worker."""
        self.worker = worker
        self.lost: Lost | None = None
        self.raised: BaseException | None = None
        self.error = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Asks the worker.

        Raises:
            Lost: there was no usable answer; from then on every call raises it.
            Unsendable: an argument of the tests is not plain data.
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
    """What the worker says was raised: the nearest built-in exception, and a line about it.

    Raises:
        Lost: it does not say it as it must.
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
                # UnicodeDecodeError wants five arguments.
                continue
    return Exception(text), said


def _line(name: str, text: str) -> str:
    """An exception in one printable line, whatever its text holds."""
    line = f"{name}: {text}".rstrip(": ")
    return "".join(one if one.isprintable() else " " for one in line)[:_TEXT_CAP]


def judge(job: dict[str, Any], worker: Channel) -> dict[str, Any]:
    """The verdict on one program.

    Args:
        job: its `prompt`, `completion`, `test` and `entry_point`.
        worker: the channel to a worker that is confined and has not yet been sent anything.

    Returns:
        `passed` and `reason`, and `lost` if the worker is gone; or `unusable` if the tests cannot be run.
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
    # Not before: what the program does must have no part in whether the tests can be used.
    names[job["entry_point"]] = candidate
    try:
        check(candidate)
    except Exception as error:
        # Also where a test swallowed that the worker is gone.
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
    """What a prompt defines beside the function that is asked for; some tests call it."""
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
    """Loads the program that the judge sends and answers its calls until it hangs up."""
    job = judge.receive()
    # As in lm-eval's code_eval: the name of the module is not "__main__".
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
    # Without the future import of this file, which would leave annotations unread.
    exec(compile(source, name, "exec", dont_inherit=True), names)


class Packages:
    """Finds the few packages outside the standard library that may be imported, and no other."""

    def __init__(self, folders: dict[str, str]) -> None:
        """Takes the folder of each package by its name."""
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As importlib asks; the modules within a package are found by Python itself."""
        if path is not None or name not in self.folders:
            return None
        from importlib.util import spec_from_file_location

        folder = self.folders[name]
        return spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])


def main(arguments: list[str]) -> None:
    """Confines this process, says so, and does its part."""
    side, settings = arguments[0], json.loads(arguments[1])
    first, *others = (Channel(*pair) for pair in settings["channels"])
    sys.argv[:] = [""]
    sys.meta_path.append(Packages(settings["packages"]))  # pyright: ignore[reportArgumentType]
    try:
        walls.confine(settings["readable"], settings["cpu_seconds"], settings["memory"])
    except walls.Unavailable as error:
        first.send({"refused": str(error)})
        return
    # The judge passes on what the worker says of itself: the job comes when both are confined.
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
        # Nothing that a program has left behind is run at the end.
        os._exit(0)
