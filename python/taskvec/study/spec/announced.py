"""Checks what a study fixes before it begins: its primary comparisons, and published figures of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UsageError
from .arms import arms, cells
from .asked import asked

if TYPE_CHECKING:
    from ...records import Json
    from .sections import Primary, Study


def primary(study: Study) -> list[Json]:
    """The primary comparisons: those that the file lists, else +v against the baseline on each benchmark.

    Raises:
        UsageError: a comparison is not possible in this study, or is listed twice; or `published` names an
            arm that the study does not have.
    """
    _must_have(
        study, "published", {arm for each in _published(study).values() for arm in each}, _names(study)
    )
    if study.primary is None:
        named = [one.id for one in asked(study) if not one.derived]
        return [{"arm": "plus", "against": "baseline", "benchmark": one} for one in named]
    for one in study.primary:
        _must_be_asked(study, one)
    found = [one.model_dump() for one in study.primary]
    if twice := [one for one in found if found.count(one) > 1]:
        what = " ".join(twice[0].values())
        raise UsageError(f"study {study.name}: primary lists {what} twice; remove one of them")
    return found


def _must_be_asked(study: Study, one: Primary) -> None:
    _must_have(study, "primary", {one.arm, one.against}, _names(study))
    benchmarks = [each.id for each in asked(study)]
    if one.benchmark not in benchmarks:
        raise UsageError(
            f"study {study.name}: primary names the benchmark {one.benchmark!r}, which the study does not"
            f" have; it has {', '.join(benchmarks)}"
        )
    if one.arm == one.against:
        raise UsageError(f"study {study.name}: primary compares {one.arm} with itself; name another arm")
    of = [arm.id for arm, benchmark in cells(study) if benchmark.id == one.benchmark]
    if lacking := {one.arm, one.against} - {*of}:
        raise UsageError(
            f"study {study.name}: primary names {min(lacking)} on {one.benchmark}, on which only"
            f" {', '.join(of)} are run; choose among these"
        )


def _must_have(study: Study, key: str, wanted: set[str], known: list[str]) -> None:
    if odd := wanted - {*known}:
        raise UsageError(
            f"study {study.name}: {key} names the arm {min(odd)!r}, which the study does not have; it has"
            f" {', '.join(known)}"
        )


def _names(study: Study) -> list[str]:
    return [arm.id for arm in arms(study)]


def _published(study: Study) -> dict[str, dict[str, float]]:
    return study.published.changes if study.published else {}
