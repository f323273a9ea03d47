"""Writes the corpus that fuzzing starts from: small sound files, and hostile ones of each kind known.

    python fuzz/seeds.py fuzz/corpus

Needs Python alone. Each seed is named after its content, so that a second call adds nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import sys
from pathlib import Path
from typing import Any

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
# In the order of the target `plan_inputs`.
NAMES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    *SHARDS,
    "adapter_config.json",
    "adapter_model.safetensors",
    "vector.json",
    "vector.safetensors",
    "vector-exceptions.safetensors",
    "tokenizer.json",
    "generation_config.json",
)
FOLDERS = ("target", "minuend", "subtrahend")
BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "U8": 1, "F8_E4M3": 1}


def header(**tensors: tuple[str, list[int]]) -> dict[str, Any]:
    """A header of these tensors, one after the other; `__` in a name stands for a dot."""
    entries, at = dict[str, Any](), 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for dim in shape:
            size *= dim
        entries[name.replace("__", ".")] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return entries


def raw(text: bytes | str | dict[str, Any], data: int = 0, length: int | None = None) -> bytes:
    """A file with this header and so many bytes of data; `length` lies about the header's."""
    if isinstance(text, dict):
        text = json.dumps(text)
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content) if length is None else length) + content + bytes(data)


def headers() -> list[str]:
    """JSON texts of headers."""
    sound = header(a=("F32", [2, 3]), b=("BF16", [4]), c=("I64", []))
    one = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    texts = [
        json.dumps(sound),
        json.dumps({"__metadata__": {"format": "pt"}, **sound}),
        '{"__metadata__":null}',
        '{"__metadata__":{"a":1}}',
        "{}",
        f'{{"a":{one},"a":{one}}}',
        f'{{"a":{one},"\\u0061":{one}}}',
        f'{{"":{one}}}',
        f'{{"\\n":{one}}}',
        f'{{"a":{one}}}   ',
        f' {{"a":{one}}}',
        f'{{"a":{one},}}',
        '{"a":["F32",[1],[0,4]]}',
        '{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}',
        '{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}',
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}',
        json.dumps({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}),
        '{"a":' + "[" * 200 + "]" * 200 + "}",
    ]
    return texts


def indexes() -> list[str]:
    """Texts of indexes."""

    def index(shard: str, tensor: str = "a", metadata: str = '{"total_size":8}') -> str:
        return f'{{"metadata":{metadata},"weight_map":{{"{tensor}":"{shard}"}}}}'

    names = (
        *SHARDS,
        "../x.safetensors",
        "/x.safetensors",
        "C:x.safetensors",
        "a\\\\b.safetensors",
        "%2e%2e.safetensors",
        ".x.safetensors",
        "x.bin",
        "\\u0000.safetensors",
        "x.safetensors\\u0000",
        "é.safetensors",
        "a" * 260 + ".safetensors",
        "",
    )
    return [
        *map(index, names),
        index(SHARDS[0], "\\u001b[2J"),
        index(SHARDS[0], metadata='{"a":1,"a":2}'),
        index(SHARDS[0], metadata='{"total_size":1e999}'),
        '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}',
        '{"weight_map":{"a":"x.safetensors","b":"X.safetensors"}}',
        '{"weight_map":{},"weight_map":{}}',
        '{"weight_map":{"a":1}}',
        '{"weight_map":[]}',
        "[]",
        "version https://git-lfs.github.com/spec/v1\n",
    ]


def vectors() -> list[tuple[dict[str, Any] | str, dict[str, Any] | None]]:
    """Descriptions of vectors, some with the header of an exceptions file."""

    def vector(**body: Any) -> dict[str, Any]:
        sound = {"encoding": "dense", "exceptions": 0, "tied": None}
        return {"schema": "taskvec/vector/1", "vector": sound | body}

    exceptions = header(a__index=("I64", [3]), a__value=("F32", [3]))
    return [
        (vector(), None),
        (vector(exceptions=3), exceptions),
        (vector(exceptions=2, tied=True), exceptions),
        (vector(exceptions=3), header(a__index=("I64", [3]), a__value=("F32", [4]))),
        (vector(exceptions=2), header(b__index=("I64", [2]), b__value=("F32", [2]))),
        (vector(exceptions=99), header(a__index=("I64", [99]), a__value=("F32", [99]))),
        (vector(exceptions=3), {**exceptions, **header(c=("F32", [0]))}),
        (vector(exceptions=-1), None),
        (vector(encoding="sparse\x1b[2J"), None),
        (vector() | {"schema": "taskvec/vector/2\n"}, None),
        (vector(tied="\x07"), None),
        ('{"schema":"a","schema":"b"}', None),
        ("[]", None),
    ]


def adapters() -> list[dict[str, Any] | str]:
    """Configurations of adapters."""
    sound = {
        "peft_type": "LORA",
        "base_model_name_or_path": "org/base",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
        "revision": None,
    }
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {r"layers\.\d+\..*": 1}},
        {"rank_pattern": {"(": 1}},
        {"rank_pattern": {"(a{1000}){1000}": 1}},
        {"rank_pattern": {"q_proj": 0}},
        {"r": -1},
        {"r": 18446744073709551615},
        {"r": 1e300},
        {"lora_alpha": 1e308, "r": 1},
        {"lora_alpha": "x"},
        {"use_dora": True},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "IA3"},
        {"peft_type": "\x1b"},
        {"revision": "v1"},
        {"base_model_name_or_path": ""},
        {"unknown": {"\x07": 1}},
        {"use_rslora": "yes"},
        {"layer_replication": [[0, 1]]},
    )
    return [*(sound | change for change in changes), '{"r":1,"r":2}', "[]", '{"r":NaN}']


def job(choice: int, **folders: dict[str, Any]) -> bytes:
    """An input of `plan_inputs`: by folder and name, a header (a dict with the key `header`) or a file."""
    parts = [bytes([choice])]
    for folder, files in folders.items():
        for name, content in files.items():
            is_header = "header" in content
            value: Any = content["header"] if is_header else content
            text = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            place = FOLDERS.index(folder) * len(NAMES) + NAMES.index(name)
            parts.append(struct.pack("<BBH", place, is_header, len(text)) + text)
    return b"".join(parts)


def jobs() -> list[bytes]:
    """Inputs of `plan_inputs`: models, adapters and vectors that meet each other."""
    tensors = header(
        model__embed_tokens__weight=("BF16", [6, 4]),
        model__layers__0__q_proj__weight=("BF16", [4, 4]),
        model__norm__weight=("F32", [4]),
        lm_head__weight=("BF16", [6, 4]),
    )
    config = {"model_type": "llama", "vocab_size": 6, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    model = {"config.json": config, "model.safetensors": {"header": tensors}}
    untied = {**model, "config.json": {**config, "tie_word_embeddings": True}}
    nested = {**model, "config.json": {"text_config": {**config, "dtype": "float32"}, "note": "é\\"}}
    wrapped = {
        "config.json": config,
        "model.safetensors": {"header": {f"module.{name}": entry for name, entry in tensors.items()}},
    }
    larger = {
        "config.json": config,
        "model.safetensors": {
            "header": header(
                model__embed_tokens__weight=("BF16", [8, 4]),
                model__layers__0__q_proj__weight=("F16", [4, 4]),
                model__norm__weight=("F32", [0]),
            )
        },
    }
    names = list(tensors)
    halves = [
        header(**{name.replace(".", "__"): (tensors[name]["dtype"], tensors[name]["shape"]) for name in part})
        for part in (names[:2], names[2:])
    ]
    places = {name: SHARDS[number] for number, half in enumerate(halves) for name in half}
    sharded = {
        "config.json": config,
        "model.safetensors.index.json": {"metadata": {}, "weight_map": places},
        **{shard: {"header": half} for shard, half in zip(SHARDS, halves, strict=True)},
    }
    adapter = {
        "adapter_config.json": adapters()[0],
        "adapter_model.safetensors": {
            "header": header(
                base_model__model__model__layers__0__q_proj__lora_A__weight=("F32", [2, 4]),
                base_model__model__model__layers__0__q_proj__lora_B__weight=("BF16", [4, 2]),
            )
        },
    }
    other = {**adapter, "adapter_config.json": {**json.loads(json.dumps(adapters()[1]))}}
    vector = {
        "vector.json": vectors()[1][0],
        "vector.safetensors": {"header": header(model__layers__0__q_proj__weight=("BF16", [4, 4]))},
        "vector-exceptions.safetensors": {
            "header": header(
                model__layers__0__q_proj__weight__index=("I64", [3]),
                model__layers__0__q_proj__weight__value=("F32", [3]),
            )
        },
    }
    plain = {"vector.json": vectors()[0][0], "vector.safetensors": vector["vector.safetensors"]}
    quantised = {**model, "config.json": {**config, "quantization_config": {"quant_method": "gptq"}}}
    models = (model, untied, nested, wrapped, larger, sharded, adapter, quantised)
    made = [
        job(choice, target=target, minuend=minuend, subtrahend=subtrahend)
        for choice, (target, minuend, subtrahend) in itertools.product(
            (0, 4, 8, 16, 32), ((a, b, c) for a in models[:6] for b in models for c in (model, a, b))
        )
    ]
    made += [
        job(1, minuend=minuend, subtrahend=subtrahend)
        for minuend in (*models, other)
        for subtrahend in models
    ]
    made += [
        job(2, target=target, minuend=a, subtrahend=b)
        for target in models
        for a in (vector, plain, adapter)
        for b in (plain, vector)
    ]
    made += [job(3, target=target) for target in models]
    return made


def frames() -> list[bytes]:
    """Frames of small tensors: number of elements − 1, kind of tensor, magnitudes, palette, frame."""
    two, narrow, wide, long = b"\x01\x00", b"\x00", b"\x02", b"\x01"
    sixteen, palette = b"\x0f\x00", b"\x01\x80\x3f"
    return [
        two + narrow + b"\0" + b"\x03" + bytes(4),
        two + wide + b"\0" + b"\x13" + bytes(range(8)),
        two + long + b"\0" + b"\x13" + bytes(range(8)),
        two + narrow + palette + b"\x00" + b"\x02\0\x01" + b"\0",
        sixteen + narrow + palette + b"\x01\x02" + b"\x02\x05\x00" + b"\x02\x01\x00" + b"\0",
        sixteen + narrow + b"\0" + b"\x06\x01" + b"\x02\x03\x02" + b"\x01\x80\x3f" + b"\x01\x00" + b"\0",
        sixteen + narrow + b"\0" + b"\x02\x01" + b"\x02\x03\x02" + b"\x01\xff" + b"\x01\x01\x40\x01\x50",
        sixteen + wide + palette + b"\x0a\x01" + b"\x02\x03\x02" + b"\x01\x00" + b"\0"
        + b"\x01\x02\x03\x02" + b"\x01\x40\x01\x01",
    ]  # fmt: skip


def corpus() -> dict[str, list[bytes]]:
    """The seeds by target."""
    vector_seeds = [
        (text if isinstance(text, str) else json.dumps(text)).encode()
        + (b"" if file is None else b"\0" + json.dumps(file).encode())
        for text, file in vectors()
    ]
    texts = headers()
    files = [
        raw(texts[0], 24 + 8 + 8),
        raw("{}"),
        raw("{}", length=0),
        raw("{}", length=1 << 40),
        raw(texts[0], 3),
        b"",
        b"PK\x03\x04",
        b"GGUF",
        b"\x80\x02",
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1\n",
    ]
    return {
        "header": [*(text.encode() for text in texts), *files],
        # Bytes that are not UTF-8 in a part that is skipped got through once.
        "index": [
            *(text.encode() for text in indexes()),
            b'{"metadata":{"a":"\xff"},"weight_map":{"a":"x.safetensors"}}',
            b'{"more":"\xc3","weight_map":{"a":"x.safetensors"}}',
        ],
        "packed_entry": [
            b"BF16 [2,3] exact 3 EAAA",
            b"BF16 [] wide 0 AAAA",
            b"F32 [0,7] exact 0 ",
            b"F32 [262145] exact 127 EAAAEAAA",
            b"BF16 [4294967296,4294967296] exact 0 AAAA",
        ],
        "packed_frame": frames(),
        "vector_json": vector_seeds,
        "adapter_config": [
            (text if isinstance(text, str) else json.dumps(text)).encode() for text in adapters()
        ],
        "plan_inputs": jobs(),
    }


def main(root: Path) -> None:
    """Writes them below `root`, a folder for each target."""
    for target, seeds in corpus().items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        print(f"{target}: {len({*seeds})} seeds")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
