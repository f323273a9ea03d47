"""The report in a real browser: still, whole and readable on a desk, on a phone, in the dark and in print."""

from __future__ import annotations

import os
import time
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from browsing.browser import Browser, chromium
from browsing.pages import rich
from runs import outcomes, write_run
from taskvec.study.analysis.analyse import load
from taskvec.study.reporting import page
from taskvec.study.rundir.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DESK, TABLET, PHONE, PAPER = 1280, 768, 390, 718
HOSTILE = (
    '</table><script>document.title = "mine"</script><img src="https://example.org/x.png" onerror="x()">'
)
LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 6


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        pids = opened.pids
        yield opened
    assert not still_running(pids)


def still_running(pids: list[int]) -> list[int]:
    """Those that have not ended, and been waited for, within five seconds."""
    end = time.monotonic() + 5
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports by name: of everything, of names that mean harm or are endless, and of a run just begun."""
    folder = tmp_path_factory.mktemp("pages")
    results = rich(folder / "rich")
    cells = {"baseline": {"chain": outcomes(9, 4)}}
    begun = load(write_run(folder / "begun", cells, arms=["baseline", "plus", "random-1", "alpha-0.5"]))
    some: dict[str, Results] = {"rich": results, "hostile": hostile(results), "begun": begun}
    for name, one in some.items():
        page.write(one, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in some}


def hostile(results: Results) -> Results:
    """The same results with every text replaced, by markup in one half of the places and by a long word."""
    json_of = deepcopy(results.to_json())
    json_of["study"] = {**json_of["study"], "name": HOSTILE, "about": LONG, "think": HOSTILE}
    json_of["command"] = LONG
    json_of["conclusions"] = [f"In all: {LONG}", HOSTILE, *json_of["conclusions"]]
    for at, one in enumerate((*json_of["benchmarks"], *json_of["inputs"])):
        one["title" if "title" in one else "name"] = (HOSTILE, LONG)[at % 2]
    for at, arm in enumerate(json_of["arms"]):
        arm["label"] = (LONG, HOSTILE)[at % 2]
    for one in json_of["changed_answers"]:
        one["target"] = one["task"] = one["question"] = LONG
        one["baseline"] |= {"answer": LONG, "response": HOSTILE}
        one["plus"] |= {"answer": HOSTILE, "response": LONG}
    for one in json_of["robustness"]:
        one["perturbation"] = LONG
    json_of["vector"]["layers"][3]["layer"] = LONG
    for one in json_of["benchmarks"]:
        one["data"][0] |= {"repository": LONG, "configuration": HOSTILE, "revision": LONG}
    return Results.from_json(json_of)


NAMES = ("rich", "hostile", "begun")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_it_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.open(pages[name], width)
    assert browser.requests() == [pages[name].as_uri()]
    assert browser.complaints() == []
    assert browser.ask("return document.title") != "mine"
    assert browser.ask("return document.querySelectorAll('script, img').length") == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [DESK, TABLET, PHONE])
def test_nothing_sticks_out_or_runs_together(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.open(pages[name], width)
    assert browser.objections("sticking_out") == []
    assert browser.objections("running_together") == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_all_text_can_be_read(browser: Browser, pages: dict[str, Path], width: int, dark: bool) -> None:
    browser.open(pages["rich"], width, dark=dark)
    assert browser.objections("too_small", 11) == []
    assert browser.objections("too_faint", 4.5) == []
    paper = browser.ask("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != dark


def test_the_picture_comes_first(browser: Browser, pages: dict[str, Path]) -> None:
    for width, screens in ((DESK, 1), (PHONE, 1)):
        browser.open(pages["rich"], width)
        top = browser.ask("return document.querySelector('.chart').getBoundingClientRect().bottom")
        assert top < 900 * screens


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_each_figure_is_shown_once(browser: Browser, pages: dict[str, Path], width: int) -> None:
    browser.open(pages["rich"], width)
    shown = "[...document.querySelectorAll('figure')].map(one => [...one.querySelectorAll('svg')]"
    counts = browser.ask(f"return {shown}.filter(svg => svg.checkVisibility()).length)")
    assert counts
    assert set(counts) == {1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dark", [False, True])
def test_print_holds_everything_on_white(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    browser.open(pages[name], PAPER, dark=dark, media="print")
    assert browser.objections("lost_in_print") == []
    assert browser.objections("sticking_out") == []
    assert browser.objections("too_faint", 4.5) == []
    assert browser.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


FAULTS: dict[str, tuple[str, str, list[Any], str]] = {
    "a wide word": ("<p style='white-space: nowrap'>" + "w" * 300, "sticking_out", [], "the page is"),
    "a cell too narrow": (
        "<table class='chart'><tr><td style='width: 40px'>" + "w" * 20 + "<td>next</table>",
        "sticking_out",
        [],
        "in its cell",
    ),
    "cut text": (
        "<figure><svg viewBox='0 0 100 20'><text x='90' y='9'>beyond the edge</text></svg></figure>",
        "running_together",
        [],
        "cut off",
    ),
    "text over text": (
        "<figure><svg viewBox='0 0 300 60'><text x='9' y='30'>one</text><text x='12' y='30'>two</text></svg>",
        "running_together",
        [],
        "over each other",
    ),
    "small text": ("<p style='font-size: 10.5px'>small</p>", "too_small", [11], "10.5 px"),
    "text in a figure made small": (
        "<figure><svg viewBox='0 0 900 30' width='300'><text x='0' y='20' style='font-size: 14px'>small",
        "too_small",
        [11],
        "px: <text>",
    ),
    "faint text": ("<p style='color: #999'>faint</p>", "too_faint", [4.5], "2.8"),
    "a hidden table": ("<table hidden><tr><td>numbers</table>", "lost_in_print", [], "not there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_looked_for_is_found(browser: Browser, pages: dict[str, Path], fault: str) -> None:
    markup, what, arguments, said = FAULTS[fault]
    planted = pages["begun"].with_name("planted.html")
    planted.write_text(pages["begun"].read_text().replace("</main>", f"{markup}</main>"))
    browser.open(planted, PHONE, media="print" if what == "lost_in_print" else "screen")
    assert any(said in one for one in browser.objections(what, *arguments))


def test_a_request_and_an_error_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    planted.write_text("<!doctype html><img src='other.png'><script>throw Error('oh')</script>")
    browser.open(planted, PHONE)
    assert (tmp_path / "other.png").as_uri() in browser.requests()
    assert any("oh" in one for one in browser.complaints())
