"""A quantised checkpoint in the making: each tensor as it is stored, and the values that are meant."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from families import NAMES, Tensors, generator, noise, write
from quantised.values import e2m1, factors, int4, spread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

Config = dict[str, Any]
Shape = list[int]

E4M3, E8M0, F4 = torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2
BF16, F16, F32, U8, I8, I32 = (
    torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.int8, torch.int32,
)  # fmt: skip

# The types of a safetensors file in the order in which the library puts their tensors.
_RANKS = (
    "I64", "F64", "F32", "I32", "BF16", "F16", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "BOOL",
)  # fmt: skip
# What is no longer true of a checkpoint whose weights are plain numbers.
_GONE = ("quantization_config", "compression_config", "expert_dtype", "store_dtype")
# What vLLM and SGLang take for a sign of codes by its mere presence.
GONE_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_model_description.json")


@dataclass(frozen=True)
class Way:
    """How a weight is stored: what its codes are, the name of its scales, and the block that shares one."""

    codes: str
    scale: str
    block: tuple[int, int]
    whole: bool = False
    """Whether the scale belongs to the tensor as such, and not to a block that happens to be all of it."""


@dataclass
class Maker:
    """A checkpoint of one kind. The same kind and seed give the same bytes.

    With `special`, codes and scales also take the values that mean NaN, and scales that are zero, negative,
    subnormal or too large.
    """

    kind: str
    seed: object = 0
    special: bool = False
    config: Config = field(default_factory=dict[str, Any])
    files: dict[str, Any] = field(default_factory=dict[str, Any])
    stored: Tensors = field(default_factory=dict[str, "Tensor"])
    logical: Tensors = field(default_factory=dict[str, "Tensor"])
    """What is meant: float32 where there are codes, else the tensor itself."""
    coded: dict[str, str] = field(default_factory=dict[str, str])
    """By logical name, the stored tensor that holds the codes."""
    ways: dict[str, Way] = field(default_factory=dict[str, Way])
    """By logical name, how the weights are stored that can be quantised again."""

    def __post_init__(self) -> None:
        self.rng = generator((self.kind, self.seed))

    def plain(self, name: str, shape: Shape, dtype: torch.dtype = BF16) -> None:
        """A tensor that is not quantised."""
        self.stored[name] = self.logical[name] = noise(shape, dtype, self.rng)

    def beside(self, name: str, value: Tensor) -> None:
        """A stored tensor that is no part of any weight's value."""
        self.stored[name] = value

    def octets(self, shape: Sequence[int]) -> Tensor:
        """Bytes in any order; each of the 256 values is among any 256 or more."""
        count = prod(shape)
        return torch.randperm(count, generator=self.rng).remainder(256).to(U8).reshape(tuple(shape))

    def e4m3(self, shape: Sequence[int]) -> Tensor:
        """Codes of E4M3: NaN is among them only if special values are wanted."""
        codes = self.octets(shape)
        if not self.special:
            codes -= (codes & 0x7F == 0x7F).to(U8)
        return codes.view(E4M3)

    def scales(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Factors as quantisers write them, with special ones in front if they are wanted."""
        count = prod(shape)
        special: Sequence[float]
        if dtype in (E8M0, U8, E4M3):
            low, high, special = (
                (1, 0x7F, (0, 0x7F, 0x80, 0xFE)) if dtype is E4M3 else (100, 125, (0, 255, 254, 1))
            )
            drawn = torch.randint(low, high, (count,), generator=self.rng).to(U8)
        else:
            special = (0.0, -1e-3, 1e-42, 3e38, float("nan"))
            drawn = (torch.randn(count, generator=self.rng).exp() * 2e-3).to(dtype)
        if self.special and count >= 2 * len(special):
            drawn[: len(special)] = torch.tensor(special).to(drawn.dtype)
        return (drawn.view(dtype) if drawn.dtype is U8 else drawn).reshape(tuple(shape))

    def mean(self, name: str, codes: str, values: Tensor) -> None:
        """Says what the tensor of codes means."""
        self.logical[name], self.coded[name] = values.contiguous(), codes

    def fp8(
        self,
        name: str,
        shape: Shape,
        dtype: torch.dtype,
        *,
        block: tuple[int, int] = (128, 128),
        scale: str | None = None,
        stored: Shape | None = None,
    ) -> None:
        """E4M3 under one factor a block; `scale` is its name or ending, `stored` the shape it has on disk."""
        grid = [*shape[:-2], -(-shape[-2] // block[0]), -(-shape[-1] // block[1])]
        codes, drawn = self.e4m3(shape), self.scales(grid, dtype)
        self.stored[name] = codes
        ending = scale or "_scale_inv"
        at = name + ending if ending.startswith("_") else ending
        self.stored[at] = drawn if stored is None else drawn.reshape(stored)
        self.mean(name, name, codes.float() * spread(drawn, block, shape))
        self.ways[name] = Way("E4M3", at, block)

    def channel(self, name: str, shape: Shape, dtype: torch.dtype, stored: Shape | None = None) -> None:
        """E4M3 under one factor a row."""
        self.fp8(name, shape, dtype, block=(1, shape[-1]), scale="_scale", stored=stored)

    def tensor(self, name: str, shape: Shape, dtype: torch.dtype, scale: str, stored: Shape) -> None:
        """E4M3 under one factor."""
        self.fp8(name, shape, dtype, block=(shape[0], shape[1]), scale=scale, stored=stored)
        self.ways[name] = replace(self.ways[name], whole=True)

    def mxfp4(
        self,
        name: str,
        shape: Shape,
        codes: str,
        scale: str,
        types: tuple[torch.dtype, torch.dtype] = (U8, U8),
    ) -> None:
        """E2M1 in pairs under exponents of 32 columns each."""
        *front, columns = shape
        packed, drawn = self.octets([*front, columns // 2]), self.scales([*front, columns // 32], types[1])
        self.stored[codes], self.stored[scale] = packed.view(types[0]), drawn
        self.mean(name, codes, e2m1(packed) * spread(drawn, (1, 32), shape))
        self.ways[name] = Way("E2M1", scale, (1, 32))

    def gpt_oss(self, name: str, experts: int, rows: int, columns: int) -> None:
        """Blocks and exponents; the weight that is meant is their transpose."""
        packed = self.octets([experts, rows, columns // 32, 16])
        drawn = self.scales([experts, rows, columns // 32], U8)
        self.stored[f"{name}_blocks"], self.stored[f"{name}_scales"] = packed, drawn
        values = (e2m1(packed) * factors(drawn).unsqueeze(-1)).reshape(experts, rows, columns)
        self.mean(name, f"{name}_blocks", values.transpose(1, 2))

    def nvfp4(self, stem: str, shape: Shape, *, divides: bool) -> None:
        """E2M1 under E4M3 of 16 columns each, which one factor multiplies (ModelOpt) or divides."""
        rows, columns = shape
        packed, drawn = self.octets([rows, columns // 2]), self.scales([rows, columns // 16], E4M3)
        name = f"{stem}.weight"
        codes = f"{stem}.weight_packed" if divides else name
        self.stored[codes], self.stored[f"{stem}.weight_scale"] = packed, drawn
        whole = self.scales([], F32)
        if divides:
            whole = self.stored[f"{stem}.weight_global_scale"] = (1 / whole).reshape(1)
            both = drawn.float() / whole
        else:
            self.stored[f"{stem}.weight_scale_2"] = whole
            both = drawn.float() * whole
        self.mean(name, codes, e2m1(packed) * spread(both, (1, 16), shape))

    def int4(self, stem: str, shape: Shape, *, group: int = 32, said: torch.dtype = I32) -> None:
        """Whole numbers from −8 to 7 in words, under one factor a group of columns."""
        rows, columns = shape
        words = self.octets([rows, -(-columns // 8) * 4]).view(I32)
        drawn = self.scales([rows, -(-columns // group)], BF16)
        self.stored[f"{stem}.weight_packed"], self.stored[f"{stem}.weight_scale"] = words, drawn
        self.stored[f"{stem}.weight_shape"] = torch.tensor(shape, dtype=said)
        values = int4(words, columns) * spread(drawn, (1, group), shape)
        self.mean(f"{stem}.weight", f"{stem}.weight_packed", values)
        self.ways[f"{stem}.weight"] = Way("INT4", f"{stem}.weight_scale", (1, group))

    def save(self, folder: Path, shards: int = 3, config: str | None = None) -> Path:
        """Writes the folder as its publisher would; `config` is another text for the same config."""
        write_folder(folder, self.stored, self.config, shards)
        if config is not None:
            (folder / "config.json").write_text(config)
        for file, content in self.files.items():
            (folder / file).write_text(json.dumps(content))
        return folder

    def plainly(self, seed: object) -> Tensors:
        """Other weights with the logical names, as a trainer saves them: bfloat16 in place of codes."""
        rng = generator((self.kind, seed, "plain"))
        return {
            name: noise(one.shape, BF16 if name in self.coded else one.dtype, rng)
            for name, one in self.logical.items()
        }

    def order(self, folder: Path) -> dict[str, list[str]]:
        """By file, the logical names in the order in which their codes lie."""
        meant = {codes: name for name, codes in self.coded.items()}
        found: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            names = [meant.get(name, name) for name in header if name != "__metadata__"]
            found[path.name] = [name for name in names if name in self.logical]
        return found


def in_file_order(tensors: Tensors) -> list[str]:
    """The names as the safetensors library orders them: by type, the widest first, and by name."""
    return sorted(tensors, key=lambda name: (_RANKS.index(NAMES[tensors[name].dtype]), name))


def write_folder(folder: Path, tensors: Tensors, config: Config | None, shards: int = 1) -> Path:
    """Tensors in shards, each in the order of the library; every third scale is not where its weight is."""
    names = sorted(tensors)
    parts: list[list[str]] = [[] for _ in range(shards)]
    scales = 0
    for at, name in enumerate(names):
        part = at * shards // len(names)
        if name.endswith(("scale", "scale_inv", "scales")):
            part = (part + (scales % 3 == 0)) % shards
            scales += 1
        parts[part].append(name)
    ordered = [in_file_order({name: tensors[name] for name in part}) for part in parts]
    return write(folder, tensors, shards=ordered, config=config)


def freed(config: Config) -> Config:
    """The config of the same checkpoint with plain numbers for weights."""
    kept = {key: value for key, value in config.items() if key not in _GONE}
    for key in ("dtype", "torch_dtype"):
        if str(kept.get(key, "")).startswith("float8"):
            kept[key] = "bfloat16"
    if "text_config" in kept:
        kept["text_config"] = freed(kept["text_config"])
    return kept
