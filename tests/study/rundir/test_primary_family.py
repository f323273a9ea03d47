"""What a run announces when it begins: the primary family of tests, the study's digest, the date."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from taskvec.errors import MismatchError
from taskvec.study.rundir.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

GSM8K = {"arm": "plus", "against": "baseline", "benchmark": "gsm8k"}
SCIQ = {**GSM8K, "benchmark": "sciq"}
THINK = {"arm": "plus-think", "against": "baseline-think", "benchmark": "gsm8k"}


def begun(folder: Path, *, overwrite: bool = False, **changes: Any) -> dict[str, Any]:
    run = {
        "schema": "taskvec/run/1",
        "identity": {"dtype": "float32"},
        "arms": ["baseline", "plus"],
        "command": "taskvec study run first",
        "started": "2026-11-24T08:00:00+00:00",
        "study_digest": "1" * 32,
        "primary": [GSM8K, SCIQ],
        **changes,
    }
    RunFolder(folder).begin(run, "study", overwrite=overwrite)
    return json.loads((folder / "run.json").read_text())


def test_what_was_announced_stays(tmp_path: Path) -> None:
    first = begun(tmp_path)
    RunFolder(tmp_path).note(batch_sizes={"gsm8k": 64})
    later = begun(
        tmp_path,
        arms=["baseline", "plus", "minus"],
        command="taskvec study run second",
        started="2026-11-25T08:00:00+00:00",
        study_digest="2" * 32,
        primary=[SCIQ, GSM8K],
    )
    assert {key: later[key] for key in ("started", "study_digest", "primary")} == {
        key: first[key] for key in ("started", "study_digest", "primary")
    }
    assert later["arms"] == ["baseline", "plus", "minus"]
    assert later["command"] == "taskvec study run second"
    assert later["batch_sizes"] == {"gsm8k": 64}


@pytest.mark.parametrize(
    ("primary", "says"),
    [([GSM8K], "now has plus against baseline on gsm8k;"), ([], "now has none;"),
     ([GSM8K, SCIQ, THINK], "plus-think against baseline-think on gsm8k;")],
)  # fmt: skip
def test_another_primary_family_is_refused(primary: Any, says: str, tmp_path: Path) -> None:
    begun(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(MismatchError) as caught:
        begun(tmp_path, primary=primary)
    said = str(caught.value)
    assert "primary tests were fixed when it began" in said
    assert "began: plus against baseline on gsm8k, plus against baseline on sciq" in said
    assert says in said
    assert "--overwrite" in said
    assert (tmp_path / "run.json").read_bytes() == before
    assert begun(tmp_path, primary=primary, overwrite=True)["primary"] == primary
