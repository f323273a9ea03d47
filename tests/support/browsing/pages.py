"""Made-up results with everything in them that a page can show (`rich`), and pages taken apart (`Parsed`)."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from runs import typical, write_run
from taskvec.study.analysis.analyse import load
from taskvec.study.rundir.results import Results

if TYPE_CHECKING:
    from pathlib import Path

SUBTASKS = [
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
    "word_sorting",
]  # fmt: skip
TITLES = {"chain": "GSM8K", "logic": "BIG-Bench Hard", "list": "HumanEval", "order": "SciQ"}
_QUESTION = (
    "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
)
_LONG = (
    "First, the blue fiber is 2 bolts. Then the white fiber is half of that, which is 2 / 2 = 1 bolt.\n"
    "So in all it takes 2 + 1 = 3 bolts.\n\n    total = 2 + 1\n    print(total)\n\n#### "
)


_VOID = {"meta", "br", "img", "link", "hr", "input", "col"}


class Parsed(HTMLParser):
    """Elements, attributes and text; fails where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "defs"} & set(self._open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def rich(folder: Path, n: int = 200) -> Results:
    """The results of a finished study of the paper's benchmarks, with every kind of entry.

    Args:
        folder: Where the RUN folder that they start from is written.
        n: Documents of each benchmark.
    """
    choice = {"kind": "choice", "metric": "acc", "filter": None, "max_new_tokens": None, "note": "no chain"}
    benchmarks = {name: {"title": title} for name, title in TITLES.items()}
    benchmarks["order"] |= choice
    run = write_run(folder, typical(n), benchmarks=benchmarks, gains={"alpha-0.25": 0.07})
    made = load(run).to_json()
    made["command"] = (
        f"taskvec study run {'a-folder-of-a-long-name/' * 4}study.yaml -o RUN --allow-code-execution"
    )
    for at, layer in enumerate(made["vector"]["layers"]):
        layer["cosine"] = 0.99 - 0.05 * at
    made["vector"]["layers"][:] = [*_layers(28)]
    _fill_benchmarks(made)
    _fill_cells(made)
    _compare(made)
    made["robustness"] = [*_perturbed(made, n)]
    made["changed_answers"] = [
        _changed(name, document, gained=document < 3)
        for name in (*TITLES, "chain-typos")
        for document in range(6)
    ]
    return Results.from_json(made)


def _layers(count: int) -> list[dict[str, Any]]:
    names = ["embed_tokens", *map(str, range(count)), "norm", "lm_head"]
    return [
        {
            "layer": name,
            "norm": 1 + at % 7,
            "relative": 0.002 * (1 + at % 7),
            "cosine": 0.999 - 0.004 * (at % 9),
        }
        for at, name in enumerate(names)
    ]


def _fill_benchmarks(made: Any) -> None:
    readings = {"chain": ["flexible-extract"], "order": ["acc_norm"]}
    for one in made["benchmarks"]:
        one["readings"] = readings.get(one["id"], [])
        one["subtasks"] = SUBTASKS if one["id"] == "logic" else []
        tasks = one["subtasks"] or [one["task"]]
        one["data"] = [
            {
                "task": task,
                "repository": f"made/{one['id']}",
                "configuration": task,
                "revision": f"{at:02x}" * 20,
                "fingerprint": "f" * 16,
                "files": ["/data/" + "a-long-folder/" * 6 + "rows.jsonl"] if one["id"] == "order" else None,
            }
            for at, task in enumerate(tasks)
        ]


def _fill_cells(made: Any) -> None:
    titled = {one["id"]: one for one in made["benchmarks"]}
    for at, arm in enumerate(made["arms"]):
        for name, cell in arm["cells"].items():
            length = 40.0 + 160 * cell["score"] + 30 * (arm["prompt"] == "think") + at
            generated = titled[name]["kind"] == "generate"
            cell["seconds"] = 3000.0 + 40 * at
            cell["mean_tokens"] = length if generated else None
            cell["tokens_interval"] = [length - 6, length + 8] if generated else None
            cell["empty"] = 0.01 if generated else None
            cell["readings"] = {
                reading: {"score": cell["score"], "interval": cell["interval"]}
                for reading in titled[name]["readings"]
            }
            cell["subtasks"] = {
                task: {"n": 250, "score": (place + at) % 20 / 20}
                for place, task in enumerate(titled[name]["subtasks"])
            }


def _compare(made: Any) -> None:
    cells = {arm["id"]: arm["cells"] for arm in made["arms"]}
    made["token_changes"] = [
        {
            "arm": arm,
            "against": "baseline-think" if arm == "plus-think" else "baseline",
            "benchmark": name,
            "mean": cell["mean_tokens"],
            "other": cells["baseline"][name]["mean_tokens"],
            "difference": cell["mean_tokens"] - cells["baseline"][name]["mean_tokens"],
            "interval": [-3.0, 90.0],
        }
        for arm, of in cells.items()
        if arm not in ("baseline", "baseline-think")
        for name, cell in of.items()
        if cell["mean_tokens"] is not None
    ]
    made["random_means"] = [
        {
            "benchmark": name,
            "seeds": 3,
            "difference": 0.004,
            "interval": [-0.012, 0.019],
            "share": None if name == "order" else 0.008,
            "share_interval": None if name == "order" else [-0.02, 0.04],
        }
        for name in TITLES
    ]


def _perturbed(made: Any, n: int) -> list[dict[str, Any]]:
    """Adds perturbed benchmarks with their cells and comparisons; returns what is found of them."""
    found: list[dict[str, Any]] = []
    arms = {arm["id"]: arm for arm in made["arms"]}
    clean = {one["id"]: one for one in made["benchmarks"]}
    for name in ("chain", "list"):
        for at, kind in enumerate(("distractor", "distractor-number", "typos", "instruction")):
            one = f"{name}-{kind}"
            of = {"of": name, "parent": name, "perturbation": kind, "title": f"{TITLES[name]}, {kind}"}
            made["benchmarks"].append({**clean[name], **of, "id": one})
            for arm in ("baseline", "plus", "baseline-think", "plus-think"):
                arms[arm]["cells"][one] = {**arms[arm]["cells"][name], "touched": 0.95}
            main = next(
                each
                for each in made["comparisons"]
                if (each["arm"], each["against"], each["benchmark"]) == ("plus", "baseline", name)
            )
            made["comparisons"].append({**main, "benchmark": one, "family": "secondary"})
            gain = main["difference"]
            left = 0.95 - 0.25 * at
            found.append(
                {
                    "benchmark": one,
                    "of": name,
                    "perturbation": kind,
                    "touched": 0.95,
                    "n": round(0.95 * n),
                    "clean": gain,
                    "perturbed": gain * left,
                    "change": gain * (left - 1),
                    "interval": [gain * (left - 1) - 0.06, gain * (left - 1) + 0.05],
                    "p": 0.3 / 10 ** (3 * at),
                    "p_holm": 0.9 / 10 ** (3 * at),
                    "left": left if name == "chain" else None,
                    "left_interval": [left - 0.1, left + 0.12] if name == "chain" else None,
                }
            )
    return found


def _changed(name: str, document: int, *, gained: bool) -> dict[str, Any]:
    right = {"answer": "3", "response": f"{_LONG}3", "correct": 1.0}
    wrong = {"answer": None if document % 2 else "4", "response": "The answer is 4.", "correct": 0.0}
    return {
        "benchmark": name,
        "doc_id": 17 * document,
        "task": SUBTASKS[8] if name == "logic" else f"mini_{name}",
        "target": "3",
        "question": _QUESTION if name == "chain" else "And this?",
        "baseline": wrong if gained else right,
        "plus": right if gained else wrong,
    }
