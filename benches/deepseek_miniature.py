"""Writes a miniature of DeepSeek-V3 or Kimi-K3: as many tensors as the real one has, all of them tiny.

    python benches/deepseek_miniature.py DIR [--donors bf16|fp8] [--shards N] [--layers N] [--experts N]
    python benches/deepseek_miniature.py DIR --kimi-k3 [--donors bf16|mxfp4] …

DIR/target is quantised, as the real one is published; DIR/minuend and DIR/subtrahend hold its tensors in
bf16. Names, their number and their order are real, and with them the size of headers and index; so what a
program does for each tensor takes as long as with the real one, and what it does for each value does not.
Needs numpy alone, and the memory of one shard.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from quantised.census import DeepSeek, Kimi
from quantised.miniature import ROLES, write_deepseek, write_kimi_k3


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--kimi-k3", action="store_true", help="497,052 tensors instead of 91,991")
    parser.add_argument("--donors", choices=("bf16", "fp8", "mxfp4"), default="bf16")
    parser.add_argument("--mtp", action="store_true", help="donors have the layer beyond the last one too")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--experts", type=int)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.donors == ("fp8" if options.kimi_k3 else "mxfp4"):
        parser.error(f"donors of this model are not quantised as {options.donors}")
    if options.kimi_k3 and options.mtp:
        parser.error("this model has no layer beyond the last one")
    sizes = {name: value for name in ("layers", "experts") if (value := getattr(options, name)) is not None}
    more: dict[str, Any] = {"donors": options.donors, "seed": options.seed}
    if options.shards is not None:
        more["count"] = options.shards
    for role in ROLES:
        started = time.monotonic()
        if options.kimi_k3:
            (folder,) = write_kimi_k3(options.root, replace(Kimi(), **sizes), roles=[role], **more)
        else:
            small = replace(DeepSeek().small(), **sizes)
            (folder,) = write_deepseek(options.root, small, roles=[role], mtp=options.mtp, **more)
        written = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {written / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
