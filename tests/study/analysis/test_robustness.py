"""Perturbed benchmarks: what is left of v's gain, pairing that fails closed, and the words."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from runs import outcomes, write_run
from taskvec.errors import CorruptError
from taskvec.study.analysis.analyse import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from taskvec.study.rundir.results import Results

N = 300
TYPOS = {"chain-typos": {"title": "Chain, typos", "of": "chain", "parent": "chain", "perturbation": "typos"}}


def scores(**arms: list[float]) -> dict[str, dict[str, list[float]]]:
    """Cells from scores by arm and question: `plus`, and `plus_typos` for the same perturbed."""
    return {arm: {"chain": arms[arm], "chain-typos": arms[f"{arm}_typos"]} for arm in ("baseline", "plus")}


def made(
    folder: Path,
    cells: dict[str, dict[str, list[float]]],
    *,
    touched: Callable[[int], Any] = lambda number: True,
    rows: dict[str, Any] | None = None,
    benchmarks: dict[str, Any] | None = None,
    **more: Any,
) -> Results:
    """A run whose perturbed rows say what was touched."""
    known = {f"{arm}.chain-typos": {"touched": touched} for arm in cells}
    for cell, changes in (rows or {}).items():
        known[cell] = known.get(cell, {}) | changes
    return load(write_run(folder, cells, rows=known, benchmarks=benchmarks or TYPOS, **more))


def usual(n: int = N) -> dict[str, dict[str, list[float]]]:
    """v's gain is 50 % on the clean questions and 30 % on the perturbed ones."""
    return scores(
        baseline=outcomes(n, n * 3 // 10),
        plus=outcomes(n, n * 8 // 10),
        baseline_typos=outcomes(n, n * 2 // 10),
        plus_typos=outcomes(n, n * 5 // 10),
    )


def test_it_is_a_difference_of_differences_over_touched_documents(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cells = scores(
        **{
            name: random.binomial(1, share, N).astype(float).tolist()
            for name, share in (
                ("baseline", 0.3), ("plus", 0.8), ("baseline_typos", 0.2), ("plus_typos", 0.5),
            )
        }
    )  # fmt: skip
    results = made(tmp_path, cells, touched=lambda number: number % 10 != 0)
    (found,) = results.robustness
    at = np.arange(N) % 10 != 0
    clean, perturbed = (
        (np.array(cells["plus"][name]) - np.array(cells["baseline"][name]))[at]
        for name in ("chain", "chain-typos")
    )
    assert (found.benchmark, found.original, found.perturbation) == ("chain-typos", "chain", "typos")
    assert (found.touched, found.n) == (0.9, 270)
    assert found.clean == pytest.approx(clean.mean())
    assert found.perturbed == pytest.approx(perturbed.mean())
    change = perturbed - clean
    assert found.change == pytest.approx(change.mean())
    error = change.std(ddof=1) / 270**0.5
    normal = (change.mean() - 1.96 * error, change.mean() + 1.96 * error)
    assert found.interval == pytest.approx(normal, abs=0.01)
    # Each of −2 to 2 with either sign; 270 of them are near the normal distribution.
    z = (abs(change.sum()) - 0.5) / (change**2).sum() ** 0.5
    assert found.p == pytest.approx(2 * stats.norm.sf(z), rel=0.3)
    assert found.left == pytest.approx(perturbed.mean() / clean.mean())
    assert found.left_interval is not None
    rest = perturbed - found.left * clean
    half = 1.96 * rest.std(ddof=1) / 270**0.5 / clean.mean()
    assert found.left_interval == pytest.approx((found.left - half, found.left + half), abs=0.02)
    cell = results.arms[1].cells["chain-typos"]
    assert cell.touched == 0.9
    assert results.arms[1].cells["chain"].touched is None


def test_p_is_the_exact_sign_flip_of_documents_and_of_clusters(tmp_path: Path) -> None:
    change = {
        "baseline": [0.0, 0, 0, 0, 0, 0, 1, 0],
        "plus": [1.0, 1, 1, 1, 1, 0, 0, 1],
        "baseline_typos": [0.0, 0, 0, 1, 0, 0, 0, 0],
        "plus_typos": [0.0, 0, 1, 0, 0, 0, 1, 1],
    }
    by_document = [-1, -1, 0, -2, -1, 0, 2, 0]
    by_cluster = [-2, -2, -1, 2]

    def oracle(values: list[int]) -> float:
        signs = list(itertools.product((1, -1), repeat=len(values)))
        return sum(abs(np.dot(of, values)) >= abs(sum(values)) for of in signs) / len(signs)

    (found,) = made(tmp_path / "documents", scores(**change)).robustness
    assert found.p == oracle(by_document)
    pairs = {"cluster": lambda number: f"seed {number // 2}"}
    rows = {f"{arm}.{name}": pairs for arm in ("baseline", "plus") for name in ("chain", "chain-typos")}
    (found,) = made(tmp_path / "clusters", scores(**change), rows=rows).robustness
    assert found.p == oracle(by_cluster)


def test_it_is_tested_in_the_secondary_family(tmp_path: Path) -> None:
    results = made(tmp_path, usual())
    assert results.families.primary == 1
    # +v against the baseline on the perturbed benchmark, and the difference of differences.
    assert results.families.secondary == 2
    perturbed = results.compared("plus", "baseline", "chain-typos")
    (found,) = results.robustness
    assert perturbed is not None
    assert perturbed.family == "secondary"
    assert perturbed.p is not None
    assert found.p is not None
    two = sorted([perturbed.p, found.p])
    assert sorted([perturbed.p_holm, found.p_holm]) == pytest.approx([2 * two[0], max(2 * two[0], two[1])])


def test_perturbed_benchmarks_are_asked_of_the_baseline_and_v_alone(tmp_path: Path) -> None:
    cells = usual()
    cells |= {arm: {"chain": outcomes(N, 90)} for arm in ("minus", "random-1", "alpha-0.5", "minuend")}
    results = made(tmp_path, cells)
    assert results.complete
    (tmp_path / "samples" / "plus.chain-typos.jsonl").unlink()
    part = load(tmp_path)
    assert (part.missing, part.robustness) == (("plus.chain-typos",), ())


def test_the_words_name_what_is_left(tmp_path: Path) -> None:
    results = made(tmp_path, usual())
    whole = results.conclusions[0]
    assert whole.startswith("In all: v raises Chain.")
    assert whole.endswith("Of 1 perturbed benchmark, v's gain is shown to shrink on Chain, typos.")
    (text,) = (one for one in results.conclusions if one.startswith("Chain, typos: "))
    assert "The perturbation (typos) changes 300 questions of 300." in text
    assert "On these v's gain is +50.0 points when they are clean and +30.0 when they are perturbed" in text
    assert "(change −20.0, 95% interval" in text
    assert "): v's gain shrinks. 60% of the clean gain is left (95% interval" in text


def test_what_is_not_shown_to_shrink_is_not_called_robust(tmp_path: Path) -> None:
    cells = usual()
    for arm in cells:
        cells[arm]["chain-typos"] = list(cells[arm]["chain"])
    results = made(tmp_path, cells)
    (text,) = (one for one in results.conclusions if one.startswith("Chain, typos: "))
    assert "that v's gain changes is not shown. 100% of the clean gain is left" in text
    assert "shown to shrink on none of them" in results.conclusions[0]


def test_no_share_is_left_of_no_gain(tmp_path: Path) -> None:
    cells = usual()
    cells["plus"]["chain"] = outcomes(N, 92, 295)
    results = made(tmp_path, cells)
    (found,) = results.robustness
    assert (found.left, found.left_interval) == (None, None)
    (text,) = (one for one in results.conclusions if one.startswith("Chain, typos: "))
    assert "is not known, since the clean gain is not clearly different from 0" in text
    assert "perturbed benchmark" not in results.conclusions[0]


def test_a_loss_that_shrinks_is_called_a_loss(tmp_path: Path) -> None:
    cells = usual()
    cells = {"baseline": cells["plus"], "plus": cells["baseline"]}
    results = made(tmp_path, cells)
    (found,) = results.robustness
    assert (found.clean, found.perturbed, found.change) == pytest.approx((-0.5, -0.3, 0.2))
    (text,) = (one for one in results.conclusions if one.startswith("Chain, typos: "))
    assert "v's loss shrinks. 60% of the clean loss is left" in text
    assert "perturbed benchmark" not in results.conclusions[0]


# Pairing fails closed


@pytest.mark.parametrize("key", ["doc_hash", "target", "task", "cluster"])
def test_another_document_is_not_paired_with_its_perturbation(tmp_path: Path, key: str) -> None:
    rows = {f"{arm}.chain-typos": {key: lambda number: f"other {number}"} for arm in ("baseline", "plus")}
    with pytest.raises(CorruptError, match=rf"chain-typos\.jsonl and .*chain\.jsonl .*`{key}` of document 0"):
        made(tmp_path, usual(20), rows=rows)


def test_options_that_moved_have_another_target(tmp_path: Path) -> None:
    rows = {f"{arm}.chain-typos": {"target": lambda number: f"({number})"} for arm in ("baseline", "plus")}
    moved = {"chain-typos": {"of": "chain", "parent": "chain", "perturbation": "options"}}
    assert len(made(tmp_path, usual(20), rows=rows, benchmarks=moved).robustness) == 1


def test_a_perturbation_of_fewer_documents_is_not_paired(tmp_path: Path) -> None:
    cells = usual(20)
    for arm in cells:
        cells[arm]["chain-typos"].pop()
    with pytest.raises(CorruptError, match="only one of them holds document 19"):
        made(tmp_path, cells)


@pytest.mark.parametrize("other", [None, False])
def test_rows_must_agree_on_what_was_touched(tmp_path: Path, other: bool | None) -> None:
    rows = {"plus.chain-typos": {"touched": lambda number: other if number == 7 else True}}
    with pytest.raises(CorruptError, match="do not agree on whether the perturbation changed document 7"):
        made(tmp_path, usual(20), rows=rows)


def test_a_perturbation_that_changed_nothing_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="the perturbation changed no document; delete it"):
        made(tmp_path, usual(20), touched=lambda number: False)


def test_variations_of_a_family_of_questions_stand_beside_their_seed_questions(tmp_path: Path) -> None:
    seeds = [f"q{at}" for at in range(40)]
    variations = {"of": "seeds", "perturbation": "variation"}
    cells = {
        "baseline": {"seeds": [0.0] * 40, "plus": [0.0] * 120},
        # All seed questions are gained, and one variation of three.
        "plus": {"seeds": [1.0] * 40, "plus": [float(at % 3 == 0) for at in range(120)]},
    }
    rows = {
        f"{arm}.{name}": {
            "cluster": lambda at, each=each: seeds[at // each],
            "task": lambda at: f"kind {at % 3}",
        }
        for arm in cells
        for name, each in (("seeds", 1), ("plus", 3))
    }
    results = load(write_run(tmp_path, cells, benchmarks={"plus": variations}, rows=rows))
    (found,) = results.robustness
    assert (found.n, found.clean, found.perturbed) == (120, 1.0, pytest.approx(1 / 3))
    assert found.change == pytest.approx(-2 / 3)
    assert found.left == pytest.approx(1 / 3)
    # Forty seed questions that all lose, with an even chance of either sign for each.
    assert found.p == pytest.approx(2 * 0.5**40)
    text = " ".join(results.conclusions)
    assert "v's gain is +100.0 points on the seed questions and +33.3 on their 120 variations" in text
