"""The bytes of outputs as an earlier version wrote them: a change of any of them is a change of the product.

`recorded.json` has the SHA-256 of every file of every output below. The manifest and the model card are left
out, since they name the version. `PYTHONPATH=tests/support python tests/numbers/test_recorded.py` records
them anew. That is right only where the output was wrong, and then CHANGELOG.md says what was wrong.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from families import files, read, write
from made_family import write_family
from taskvec import apply, extract, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Path(__file__).with_name("recorded.json")
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
# A donor pair, a target, and whether stochastic rounding has anything to do there.
MIXES = [("bf16", "bf16"), ("bf16", "f16"), ("bf16", "f32"), ("f16", "bf16"), ("f32", "bf16"), ("f32", "f32")]
ALPHAS = (1.0, -1.0, 0.7, 0.3, 1e-3)


def _inputs(root: Path) -> None:
    """Folders of `root`: the family in three types, two more targets, an adapter.

    `stored` has its tied head a second time, `short` has fewer tokens than the donors.
    """
    write_family(root / "bf16", seed=0)
    for name, role in product(("f16", "f32"), ("sft", "grpo", "instruct")):
        folder = root / name / role
        tensors = {key: one.to(TYPES[name]) for key, one in read(root / "bf16" / role).items()}
        if name == "f32":
            # No bfloat16 value: what only float32 holds has to come through too.
            tensors = {key: one * 1.0009765625 for key, one in tensors.items()}
        write(folder, tensors, shards=2)
        (folder / "config.json").write_bytes((root / "bf16" / role / "config.json").read_bytes())
    target = read(root / "bf16/instruct")
    embedding = "model.embed_tokens.weight"
    config = (root / "bf16/instruct/config.json").read_text()
    for name, tensors in {
        "stored": target | {"lm_head.weight": target[embedding].clone()},
        "short": target | {embedding: target[embedding][:500].clone()},
    }.items():
        write(root / name, tensors)
        (root / name / "config.json").write_text(config)
    _adapter(root / "adapter", read(root / "bf16/sft"))


def _adapter(folder: Path, base: dict[str, torch.Tensor]) -> None:
    """A LoRA adapter on bf16/sft; its numbers are the same on every platform."""
    rng = random.Random("adapter")
    factors: dict[str, torch.Tensor] = {}
    for name, weight in base.items():
        if not name.endswith(("q_proj.weight", "down_proj.weight")):
            continue
        for factor, shape in (("A", (4, weight.shape[1])), ("B", (weight.shape[0], 4))):
            drawn = [rng.random() - 0.5 for _ in range(shape[0] * shape[1])]
            key = f"base_model.model.{name.removesuffix('.weight')}.lora_{factor}.weight"
            factors[key] = torch.tensor(drawn).reshape(shape)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(save(factors))
    said = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 6, "bias": "none", "fan_in_fan_out": False,
        "base_model_name_or_path": str(folder.parent / "bf16/sft"),
        "target_modules": ["q_proj", "down_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said))


def _jobs(root: Path) -> Iterator[tuple[str, Path]]:
    """Every output, each in a folder of its own, with its name in the record."""
    out = root / "out"

    def done(name: str, result: Any) -> tuple[str, Path]:
        del result
        return name, out / name.replace("/", "-")

    def sum_of(name: str, target: str, pair: str, **options: Any) -> tuple[str, Path]:
        donors = root / pair / "grpo", root / pair / "sft"
        return done(name, transfer(root / target, *donors, out / name.replace("/", "-"), **options))

    for donors, target in MIXES:
        name = f"{donors}-into-{target}"
        pair = root / donors / "grpo", root / donors / "sft"
        yield done(f"extract/{name}", extract(*pair, out / f"extract-{name}", encoding="dense"))
        for alpha in ALPHAS:
            yield sum_of(f"transfer/{name}/{alpha}", f"{target}/instruct", donors, alpha=alpha)
        if target != "f32":
            yield sum_of(f"stochastic/{name}", f"{target}/instruct", donors, rounding="stochastic", seed=7)
        for dtype in TYPES:
            yield sum_of(f"to-{dtype}/{name}", f"{target}/instruct", donors, alpha=0.7, dtype=dtype)
    for name, options in {
        "include": {"include": ["q_proj"]},
        "exclude": {"exclude": ["embed", "norm"]},
        "rules": {"alpha_rules": ["layers.1=0.25", "mlp=-2"]},
        "windows": {"memory": "3MiB", "threads": 1},
        "mapped": {"io": "mmap"},
    }.items():
        yield sum_of(name, "bf16/instruct", "bf16", alpha=0.9, **options)
    yield sum_of("tied-head-stored", "stored", "bf16")
    yield sum_of("common-rows", "short", "bf16", vocab="common")
    vector, other = out / "extract-bf16-into-bf16", out / "extract-f32-into-bf16"
    for name, vectors, alpha in (
        ("apply/one", vector, 0.7),
        ("apply/one-f32", other, 0.7),
        ("apply/two", [vector, other], [1, -0.5]),
    ):
        yield done(name, apply(root / "bf16/instruct", vectors, out / name.replace("/", "-"), alpha=alpha))
    lora = root / "adapter", root / "bf16/sft"
    yield done("lora/extract", extract(*lora, out / "lora-extract", encoding="dense"))
    yield done("lora/transfer", transfer(root / "bf16/instruct", *lora, out / "lora-transfer", alpha=0.5))


def _recorded(root: Path) -> dict[str, dict[str, str]]:
    _inputs(root)
    return {name: _digests(folder) for name, folder in _jobs(root)}


def _digests(folder: Path) -> dict[str, str]:
    named = {"taskvec.json", "vector.json", "README.md"}
    kept = {file: data for file, data in files(folder).items() if file not in named}
    return {file: hashlib.sha256(data).hexdigest() for file, data in sorted(kept.items())}


def test_every_output_has_the_bytes_that_were_recorded(tmp_path: Path) -> None:
    assert _recorded(tmp_path) == json.loads(RECORD.read_text())


def test_packed_vectors_give_the_recorded_bytes(tmp_path: Path) -> None:
    """What comes from a packed vector is what came from a dense one, and what came without a vector."""
    _inputs(tmp_path)
    pairs = {donors: (tmp_path / donors / "grpo", tmp_path / donors / "sft") for donors in TYPES}
    pairs["lora"] = tmp_path / "adapter", tmp_path / "bf16/sft"
    packed = {name: extract(*pair, tmp_path / "packed" / name) for name, pair in pairs.items()}
    jobs: list[tuple[str, str, list[str], float | list[float]]] = [
        ("apply/one", "bf16", ["bf16"], 0.7),
        ("apply/one-f32", "bf16", ["f32"], 0.7),
        ("apply/two", "bf16", ["bf16", "f32"], [1, -0.5]),
        ("lora/transfer", "bf16", ["lora"], 0.5),
    ]
    jobs += [
        (f"transfer/{donors}-into-{target}/{alpha}", target, [donors], alpha)
        for (donors, target), alpha in product(MIXES, ALPHAS)
    ]
    recorded = json.loads(RECORD.read_text())
    for name, target, vectors, alpha in jobs:
        out = tmp_path / "out" / name
        apply(tmp_path / target / "instruct", [packed[one] for one in vectors], out, alpha=alpha)
        assert _digests(out) == recorded[name], name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(_recorded(Path(folder)), indent=1, sort_keys=True)
    RECORD.write_text(text + "\n")
    sys.exit(0)
