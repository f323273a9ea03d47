"""The demo: the built-in family through the arithmetic and a study."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from families import assert_tensors, read
from taskvec import UsageError, study
from taskvec.cli import demo
from taskvec.study import environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer


# .ci/run runs the demo as it is, by the README's command.
@pytest.mark.slow
def test_the_whole_mission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study.run

    def short(name: str, out: Path, **how: object) -> object:
        # A few documents of each benchmark.
        return whole(name, out, limit=8, **how)

    monkeypatch.setattr(study, "run", short)
    said: list[str] = []
    out = tmp_path / "demo"
    assert demo.run(str(out), overwrite=False, say=said.append)
    for verb in ("check", "extract", "apply", "transfer", "diff", "verify", "study"):
        assert any(line.startswith(f"$ taskvec {verb} ") for line in said), verb
    assert "yes  apply and transfer agree byte for byte" in said
    assert "yes  α = 0 gives the target's weights back, byte for byte" in said
    assert not any(line.startswith("NO ") for line in said)
    assert_tensors(read(out / "applied"), read(out / "transferred"))
    results = json.loads((out / "study" / "results.json").read_text())
    assert results["complete"]
    assert {one["id"] for one in results["benchmarks"]} == {"chain", "logic", "list", "order"}
    assert said[-1] == f"The report: {out / 'study' / 'report.html'}"
    assert "<html" in (out / "study" / "report.html").read_text()

    with pytest.raises(UsageError, match="already exists; give --overwrite"):
        demo.run(str(out), overwrite=False, say=said.append)


def test_without_the_extra_the_arithmetic_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "lm_eval" else name)
    said: list[str] = []
    assert demo.run(str(tmp_path / "demo"), overwrite=False, say=said.append)
    assert 'pip install "taskvec[eval]"' in said[-1]
    assert "lm_eval" in said[-1]
    assert not (tmp_path / "demo" / "study").exists()


def test_the_command_says_what_is_there_already(taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "taskvec-demo").mkdir()
    answer = taskvec("demo")
    assert answer.code == 2
    assert "--overwrite" in answer.stderr
    assert list((tmp_path / "taskvec-demo").iterdir()) == []


def test_a_broken_promise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = demo.verbs.transfer

    def forgetful(*args: str, **options: object) -> object:
        result = transfer(*args, **options)
        if options["alpha"] == "1":
            path = next((tmp_path / "demo" / "transferred").glob("*.safetensors"))
            path.write_bytes(path.read_bytes()[:-1] + b"\x07")
        return result

    monkeypatch.setattr(demo.verbs, "transfer", forgetful)
    monkeypatch.setattr(environment, "find_spec", lambda _: None)
    said: list[str] = []
    assert not demo.run(str(tmp_path / "demo"), overwrite=False, say=said.append)
    assert "NO   apply and transfer agree byte for byte" in said
