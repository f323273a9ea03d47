"""The report: sound, self-contained, safe from what it is told, and with every number in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from browsing.pages import Parsed
from runs import outcomes, typical, write_json, write_run
from taskvec.errors import CorruptError, StorageError, UsageError
from taskvec.study.analysis.analyse import load
from taskvec.study.reporting import page, plots
from taskvec.study.reporting.scales import Scale
from taskvec.study.rundir.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable

NASTY = """</title><script>alert("1")</script><img src=x onerror='1'> & $x_1$ ☃ 数"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    order = {
        "kind": "choice",
        "metric": "acc",
        "filter": None,
        "max_new_tokens": None,
        "note": "no chain can show",
    }
    folder = tmp_path_factory.mktemp("run")
    return load(write_run(folder, typical(100), benchmarks={"order": order}, gains={"alpha-0.25": 0.07}))


@pytest.fixture(scope="module")
def parsed(results: Results) -> Parsed:
    return Parsed(page.render(results))


def made(folder: Path, **more: Any) -> Results:
    cells = {arm: {"chain": outcomes(9, 4)} for arm in ("baseline", "plus", "alpha-0.5", "random-1")}
    return load(write_run(folder, cells, **more))


def test_it_needs_nothing_from_elsewhere(parsed: Parsed) -> None:
    names = {name for name, _ in parsed.elements}
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "base", "form", "image"}
    text = json.dumps(parsed.elements)
    assert "@import" not in text
    outside = [
        value
        for _, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and not re.match(r"#|samples/[\w.-]+$", value or "")
    ]
    assert outside == []
    policy = [
        one["content"] for one in parsed.all("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in (Path(page.__file__).parent / "page.css").read_text()


def test_ids_are_unique_and_found(parsed: Parsed) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|"#)([^")]+)', json.dumps(parsed.elements)))
    assert used <= set(ids)


def test_it_can_be_heard(parsed: Parsed) -> None:
    assert parsed.all("html") == [{"lang": "en"}]
    images = [one for one in parsed.all("div") if one.get("role") == "img"]
    labels = [one["aria-label"] or "" for one in images]
    # Each figure is drawn for a desk and for a phone: four curves, the gain, three with tokens, the layers.
    assert len(images) == 4 + 1 + 3 + 1
    assert [name for name, _ in parsed.elements].count("figure") == len(images)
    assert "97.0% at 1" in labels[0]
    assert "+v 97.0% with 12" in labels[5]
    hidden = [one for one in parsed.all("svg") if one.get("aria-hidden") == "true"]
    charts = [one for one in parsed.all("table") if one.get("class") == "chart"]
    assert len(charts) == 4 + 4
    inner = [one for one in parsed.all("svg") if one.get("class") == "at"]
    assert len(hidden) + len(inner) + len(charts) == len(parsed.all("svg"))  # An axis is hidden as a whole.
    assert len(parsed.all("tfoot")) == len(charts)
    assert all(one.get("aria-hidden") == "true" for one in parsed.all("tfoot"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(one.get("scope") in ("col", "row") for one in parsed.all("th"))
    assert [name for name, _ in parsed.elements].count("h1") == 1


def test_everything_is_said(results: Results, parsed: Parsed) -> None:
    for conclusion in results.conclusions:
        for sentence in conclusion.split(": ", 1)[-1].split(". "):
            assert " ".join(sentence.rstrip(".").split()) in parsed.words
    for benchmark in results.benchmarks:
        assert benchmark.power_note in parsed.words
    for one in results.inputs:
        assert f"{one.name} ({one.digest})" in parsed.words
    for version in results.versions.values():
        assert version in parsed.words
    assert "Think step by step." in parsed.words
    assert "no chain can show" in parsed.words
    order = [
        parsed.words.index(heading)
        for heading in ("At a glance", "What the data show", "Arms", "All numbers", "How it was run")
    ]
    assert order == sorted(order)


def test_every_number_is_in_a_table(results: Results) -> None:
    rows = re.findall(r"<tr.*?</tr>", page.render(results))
    cells = [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    plus, outputs = [row for row in cells if row[0] == "+v" and len(row) > 9][:2]
    # 97 of 100 by Wilson's interval; 46 before.
    assert plus[:4] == ["+v", "97.0", "91.5 to 99.0", "+51.0"]
    found = results.compared("plus", "baseline", "chain")
    assert found is not None
    assert plus[5:7] == [str(found.wrong_to_right), str(found.right_to_wrong)]
    assert plus[9] == "primary"
    assert outputs[1:5] == ["0.0", "0.0", "0.0", "12.0"]
    assert outputs[-1] == "open"
    assert sum(row[0].startswith("Chain: +v against") for row in cells) == 4
    weights = next(row for row in cells if row[:3] == ["0.25 v", "plain", "0.25"])
    assert weights[4:7] == ["0.5", "0.035", "0.07"]  # The norm asked for, the norm left, the gain.


def test_samples_are_linked(results: Results, parsed: Parsed) -> None:
    links = {one["href"] for one in parsed.all("a") if not (one["href"] or "").startswith("#")}
    assert links == {cell.samples for arm in results.arms for cell in arm.cells.values()}
    assert len(links) == 14 * 4


def test_nothing_it_is_told_can_break_it(tmp_path: Path) -> None:
    results = made(
        tmp_path,
        benchmarks={"chain": {"title": NASTY, "task": NASTY, "note": NASTY, "metric": NASTY}},
        study={"name": NASTY, "about": NASTY, "think": NASTY},
    )
    json_of = results.to_json()
    for arm in json_of["arms"]:
        arm["label"] = f"{arm['id']}{NASTY}"
        for cell in arm["cells"].values():
            cell["samples"] = f'javascript:"{NASTY}'
    for one in json_of["inputs"]:
        one["name"] = NASTY
    json_of["vector"]["layers"][0]["layer"] = NASTY
    json_of["conclusions"] = [NASTY]
    text = page.render(Results.from_json(json_of))
    parsed = Parsed(text)
    assert not parsed.all("script")
    assert not parsed.all("img")
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    assert not any((one["href"] or "").startswith("javascript:") for one in parsed.all("a"))
    assert " ".join(NASTY.split()) in parsed.words


def test_text_that_no_encoding_holds_is_written(tmp_path: Path) -> None:
    results = made(tmp_path, study={"about": "half a \ud800 pair"})
    page.write(results, tmp_path / "report.html")
    assert "half a &#55296; pair" in (tmp_path / "report.html").read_text()
    page.rebuild(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["study"]["about"] == "half a \ud800 pair"


def test_an_unfinished_run_is_called_so(tmp_path: Path) -> None:
    results = made(tmp_path, arms=["baseline", "plus", "minus", "alpha-0.5"])
    words = Parsed(page.render(results)).words
    assert "Not finished. 1 cell still to be scored: minus.chain." in words


def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, {"baseline": {"chain": outcomes(9, 4)}}, arms=["baseline", "plus", "alpha-0.5"]
    )
    for arm in ("plus", "alpha-0.5"):
        (folder / "arms" / f"{arm}.json").unlink()
    (folder / "samples" / "baseline.chain.jsonl").unlink()
    assert Parsed(page.render(load(folder))).all("table")


def test_figures_are_sound_and_the_same_every_time(results: Results) -> None:
    chain, scale = results.benchmarks[0], Scale(0.0, 1.0)
    drawn: list[Callable[[], str]] = [
        lambda: plots.sweep(results, chain, scale, plots.HALF),
        lambda: plots.tokens(results, chain, scale, plots.NARROW),
        lambda: plots.gains(results, plots.HALF),
        lambda: plots.layers(results, plots.FULL),
    ]
    for draw in drawn:
        svg = draw()
        assert svg == draw()
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
        # The page's colours and font, in light and in dark.
        assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'"#[\w-]+"|url\(#[\w-]+\)', "", svg))
        assert "font-family" not in svg
        assert "<style" not in svg
        assert "var(--" in svg


def test_the_colours_are_the_pages() -> None:
    style = (Path(page.__file__).parent / "page.css").read_text()
    for variable in ("ink", "faint", "line", "paper", "plus", "minus", "random", "donor"):
        assert style.count(f"--{variable}:") == 3  # Light, dark, print.


def test_layers_are_shares_of_the_target_where_it_is_known(tmp_path: Path) -> None:
    results = made(tmp_path)
    assert not plots.by_share(results)
    run = json.loads((tmp_path / "run.json").read_text())
    tensors = json.loads((tmp_path / "arms" / "plus.json").read_text())["tensors"]
    write_json(tmp_path / "run.json", run | {"target_norms": {one["name"]: 50.0 for one in tensors}})
    results = load(tmp_path)
    assert plots.by_share(results)
    # The largest is 5 of √(50² + 50²), so 7.07%.
    assert ">6%<" in plots.layers(results, plots.FULL)
    assert ">8%<" not in plots.layers(results, plots.FULL)
    assert "norm over the target's" in plots.layers(results, plots.NARROW)


def test_without_a_sweep_there_is_no_curve(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(9, 4)} for arm in ("baseline", "plus")}
    assert "α curve" not in page.render(load(write_run(tmp_path, cells)))


def test_rebuild_makes_both_files_from_samples(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "results.json").write_text("stale")
    results, report = page.rebuild(tmp_path)
    assert report == tmp_path / "report.html"
    assert load(tmp_path / "results.json") == results
    assert report.read_text() == page.render(results)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "arms", "report.html", "results.json", "run.json", "samples",
    ]  # fmt: skip


def test_rebuild_of_a_results_file_needs_no_run(tmp_path: Path) -> None:
    made(tmp_path / "RUN")
    results, _ = page.rebuild(tmp_path / "RUN")
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "results.json"
    alone.write_bytes((tmp_path / "RUN" / "results.json").read_bytes())
    again, report = page.rebuild(str(alone))
    assert again == results
    assert report.read_bytes() == (tmp_path / "RUN" / "report.html").read_bytes()


def test_rebuild_refuses_what_is_damaged_and_keeps_what_was(tmp_path: Path) -> None:
    made(tmp_path)
    page.rebuild(tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    with (tmp_path / "samples" / "plus.chain.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(CorruptError, match=r"plus\.chain\.jsonl:10"):
        page.rebuild(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    results = made(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"report\.html cannot be written: (Not a dir|File exists)"):
        page.write(results, tmp_path / "file" / "report.html")


def test_without_matplotlib_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = made(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r'pip install "taskvec\[report\]"'):
        page.render(results)


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    made(tmp_path)
    code = (
        "import sys\n"
        "sys.modules.update(torch=None, transformers=None, lm_eval=None, pydantic=None, scipy=None)\n"
        "from taskvec.study.reporting.page import rebuild; rebuild(sys.argv[1])"
    )
    environment = {**os.environ, "MPLBACKEND": "tkagg"}  # No display is asked for either.
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True, env=environment)
    assert (tmp_path / "report.html").is_file()


def changed(document: Any, path: str, value: Any) -> Any:
    """The document with another value in one place, "arms.0.label"."""
    *way, last = path.split(".")
    inner = document
    for key in way:
        inner = inner[int(key) if key.isdigit() else key]
    inner[int(last) if last.isdigit() else last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study", {}),
        ("study", []),
        ("study.alpha", "much"),
        ("versions", 7),
        ("arms.0.cells.chain.score", None),
        ("arms.1.alpha", float("inf")),
        ("arms.1.effect.gain", "near"),
        ("arms.0.label", None),
        ("comparisons.0.difference", "x"),
        ("comparisons.0.interval", [0.1]),
        ("comparisons.3.benchmark", "another"),
        ("benchmarks.0.title", 3),
        ("vector.layers", [{}]),
        ("conclusions", [1]),
    ],
)
def test_an_edited_results_file_is_damage_not_a_crash(tmp_path: Path, path: str, value: Any) -> None:
    results = made(tmp_path / "RUN").to_json()
    write_json(tmp_path / "results.json", changed(json.loads(json.dumps(results)), path, value))
    with pytest.raises(CorruptError, match=re.escape(str(tmp_path / "results.json"))):
        page.rebuild(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study", {}),
        ("study", None),
        ("versions", "none"),
        ("inputs", [{}]),
        ("arms", [{}]),
        ("arms.0.id", "other"),
        ("arms.0.label", 5),
        ("arms.1.alpha", "x"),
        ("benchmarks.0.n", -1),
        ("benchmarks.0.n", "9"),
        ("benchmarks.0.title", None),
        ("target_norms", {"model.layers.2.mlp.up_proj.weight": "x"}),
    ],
)
def test_an_edited_run_is_damage_not_a_crash(tmp_path: Path, path: str, value: Any) -> None:
    made(tmp_path)
    write_json(tmp_path / "run.json", changed(json.loads((tmp_path / "run.json").read_text()), path, value))
    with pytest.raises(CorruptError, match=re.escape(str(tmp_path))):
        page.rebuild(tmp_path)
