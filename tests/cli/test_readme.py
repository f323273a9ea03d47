"""What the README and the other pages show is what happens: commands and Python run as they are there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from hubserver import WRITER, Hub
from made_family import write_family
from manual import PAGES, ROOT, blocks, commands, faults, lines, names, recipes
from parted import family as several_files

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "README.md"
# What the tests' Hub holds under the names that the pages give, in miniature.
REPOSITORIES = {
    "Qwen/Qwen2.5-1.5B-Instruct": "instruct",
    "Qwen/Qwen2.5-7B-Instruct": "instruct",
    "SII-Enigma/Qwen2.5-7B-Ins-SFT-GRPO": "grpo",
    "SII-Enigma/Qwen2.5-7B-Ins-SFT-32k": "sft",
}
BOTH = "jayminbhan/RLVR-vs-SFT-Qwen2.5-1.5b-checkpoints"
# Minutes of work, or the report of such work; that they could be given so is checked. .ci/run runs the demo.
NOT_RUN = {("demo",), ("study", "check"), ("study", "run"), ("report",)}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def shown(page: Path) -> list[list[str]]:
    """The commands of taskvec in the page's blocks, to be run in this order."""
    return [words[1:] for words in lines(text(page)) if words[0] == "taskvec"]


def is_run(words: list[str]) -> bool:
    return not any(tuple(words[: len(one)]) == one for one in NOT_RUN)


def python(page: Path) -> str:
    return "\n".join(block.text for block in blocks(text(page)) if block.language == "python")


RUNNING = [page for page in PAGES if any(map(is_run, shown(page))) or python(page)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(folder: Path, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=folder, env={**os.environ, "PYTHONUTF8": "1", **environment},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The folder that a reader of the pages is in."""
    write_family(tmp_path, seed=0)
    # One in several files, for jobs in parts.
    for name, made in zip(
        ("large", "large-grpo", "large-sft"), several_files(tmp_path / "made"), strict=True
    ):
        made.rename(tmp_path / name)
    run(tmp_path, "-m", "taskvec", "extract", "instruct", "base", "-o", "other-skill")
    return tmp_path


@pytest.fixture
def environment(hub: Hub, models: Path) -> dict[str, str]:
    """A Hub that has the models that the pages name there, in miniature."""
    for repo, role in REPOSITORIES.items():
        hub.publish(repo, models / role)
    folders = {"GRPO_FOLDER": "grpo", "SFT_FOLDER": "sft"}
    hub.publish(
        BOTH,
        {
            f"{folder}/{path.name}": path.read_bytes()
            for folder, role in folders.items()
            for path in (models / role).iterdir()
        },
    )
    return hub.env(models / "home", HF_TOKEN=WRITER)


def publish_adapters(hub: Hub, folder: Path) -> None:
    """Two adapters on one base, and a target of its shape."""
    # Not at the top: peft takes seconds.
    from adapters import change, write_adapter, write_base

    base, target = write_base(folder / "base"), write_base(folder / "target", "target")
    hub.publish("org/base", base)
    hub.publish("org/target", target)
    for adapter in ("grpo-lora", "sft-lora"):
        made = write_adapter(folder / adapter, base, adapter, r=4, target_modules=["q_proj"])
        hub.publish(f"org/{adapter}", change(made, base_model_name_or_path="org/base"))


@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_a_page_runs(
    page: Path, hub: Hub, models: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    given, code = [words for words in shown(page) if is_run(words)], python(page)
    adapters = any("org/grpo-lora" in words for words in given)
    for package, needed in (("transformers", "transformers" in code), ("peft", adapters)):
        if needed and find_spec(package) is None:
            pytest.skip(f"the page needs {package}")
    if adapters:
        publish_adapters(hub, tmp_path_factory.mktemp("adapters"))
    seen: set[str] = set()
    for words in given:
        out = words[words.index("-o") + 1] if "-o" in words and "--dry-run" not in words else None
        # A page may write a folder more than once, as ways to the same thing.
        again = ["--overwrite"] if out in seen else []
        run(models, "-m", "taskvec", *words, *again, **environment)
        if out is not None and words[0] != "check":
            assert (models / out).is_dir()
            seen.add(out)
    if code:
        # Modules of the tests are not in the way of what a user would import.
        said = run(models, "-c", code, **environment)
        for gain in re.findall(r"(?:^|gain )(\d\.\d\d)\b", said):
            assert float(gain) == pytest.approx(1, abs=0.05)


def test_the_examples_are_still_found() -> None:
    assert {name(page) for page in RUNNING} >= {
        "README.md", "docs/lora.md", "docs/python.md", "docs/studies.md", "docs/usage.md",
    }  # fmt: skip
    assert sum(map(len, map(shown, PAGES))) > 25
    assert "with taskvec.transferred(" in python(ROOT / "docs" / "python.md")


def test_ways_to_the_same_bytes(models: Path) -> None:
    """What the guide says of transfer, extract and apply, with its own commands."""
    given = {" ".join(words) for words in shown(ROOT / "docs" / "usage.md")}
    ways = (
        "transfer instruct grpo sft -o smarter --alpha 0.7",
        "extract grpo sft -o skill",
        "apply instruct skill -o again --alpha 0.7",
    )
    for way in ways:
        assert way in given
        run(models, "-m", "taskvec", *way.split())
    for path in (models / "smarter").glob("*.safetensors"):
        assert path.read_bytes() == (models / "again" / path.name).read_bytes()
    assert json.loads((models / "smarter" / "taskvec.json").read_bytes())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_on_a_page_leads_nowhere(page: Path) -> None:
    assert faults(text(page), page.parent) == []


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("```\ntaskvec transfer a b c -o d --factor 1\n```\n", "No such option '--factor'"),
        ("```\ntaskvec transfer a b -o d\n```\n", "Missing argument 'SUBTRAHEND'"),
        ("```\ntaskvec transfer a b c -o d --rounding up\n```\n", "is not one of 'nearest', 'stochastic'"),
        ("```\ntaskvec study run mini -o RUN --memory 1GB\n```\n", "No such option '--memory'"),
        ("```\ntaskvec demo --fast\n```\n", "No such option '--fast'"),
        ("```\ntaskvec mix a b\n```\n", "no command mix"),
        ("`taskvec push OUT ORG/NAME [--public]`", "no option --public"),
        ("`--dtyp bf16`", "no option --dtyp"),
        ("```\ntaskvec inspect a && curl b\n```\n", "what curl is"),
        ('```\npip install ".[evil]"\n```\n', "no extra evil"),
        ("`pip install --group linters`", "no dependency group linters"),
        ("```\njust checks\n```\n", "no recipe checks"),
        ("`.ci/runs`", "no such file"),
        ("```\npython benches/bench_transfers.py\n```\n", "no file benches/bench_transfers.py"),
        ("`python benches/bench_transfer.py --volume 0.5b`", "no option --volume"),
        ("`pytest tests/test_layer.py`", "no file tests/test_layer.py"),
        ("`cargo bench -p taskvec-core --bench kernels`", "no benchmark kernels"),
        ("`cargo +nightly fuzz run headers`", "no target headers"),
        ("[here](docs/nowhere.md)", "docs/nowhere.md: no such place"),
        ("[here](README.md#nowhere)", "README.md#nowhere: no such place"),
    ],
)
def test_a_fault_on_a_page_is_found(page: str, fault: str) -> None:
    found = faults(page)
    assert len(found) == 1
    assert fault in found[0]


def test_what_may_be_on_a_page() -> None:
    page = (
        "```\nOMP_NUM_THREADS=1 taskvec apply a b -o c   # a comment\n```\n"
        "`taskvec study …` `taskvec COMMAND --help` `taskvec check` [usage](docs/usage.md#options)\n"
        "```\nref → headers → plan\n```\n"
    )
    assert faults(page) == []


def test_the_guide_has_every_command_and_option() -> None:
    guide = text(ROOT / "docs" / "usage.md")
    for words, command in commands().items():
        assert f"`taskvec {words[0]} " in guide or f"`taskvec {words[0]}`" in guide
        for option in names(command) - {"--help", "--version"}:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", guide), option


def test_the_readme_is_short() -> None:
    assert len(text(README).split()) <= 1000


def test_every_exit_code_is_told() -> None:
    from taskvec import errors

    codes = {error.exit_code for error in vars(errors).values() if isinstance(error, type)} - {None}
    assert codes == {1, 2, 3, 4}
    for code in codes:
        assert f"| {code} |" in text(README)


def test_every_recipe_that_is_called_is_there() -> None:
    callers = [ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml", *(ROOT / ".github").rglob("*.yml")]
    called = {one for path in callers for one in re.findall(r"\bjust ([a-z][\w-]*)", text(path))}
    assert called >= {"fmt-others", "cargo-test", "layers", "wheel", "miri", "core", "full"}
    assert called <= recipes()
