"""Scores a trained family: the target, plus and minus v, the controls, with and without the think line.

    python benches/mini/evaluate.py FAMILY [--split dev|test] [--count 500]

The quick evaluator by which the recipe was chosen, and a check on `taskvec study` that shares no code with
it: the arithmetic is torch's, the generation transformers' own. Prints a markdown table and writes
FAMILY/SPLIT.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from math import comb, sqrt
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1"}

import corpus
import models
import problems
import torch
from safetensors.torch import load_file

NEW_TOKENS = 48
BATCH = 250
ANSWER = re.compile(r"####\s*([^\n]+)")

Weights = dict[str, torch.Tensor]
Scores = dict[str, list[tuple[bool, bool]]]
"""Benchmark → for each problem: right? worked out?"""


def weights(folder: Path) -> Weights:
    """A checkpoint's tensors, widened to float32."""
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


def added(target: Weights, vector: Weights, alpha: float) -> Weights:
    """Target + α·v in float32, rounded once to bfloat16, as it would be stored; widened again."""
    return {name: (tensor + alpha * vector[name]).bfloat16().float() for name, tensor in target.items()}


def norm(*tensors: torch.Tensor) -> float:
    """The Euclidean norm of all values together."""
    return sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def noise(vector: Weights, seed: int) -> Weights:
    """Gaussian noise with the norm of v in every tensor."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in vector.items()}
    return {name: tensor * (norm(vector[name]) / norm(tensor)) for name, tensor in drawn.items()}


def generated(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """Greedy answers, batched by like length."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        inputs = tokenizer([prompts[row] for row in rows], return_tensors="pt", padding=True)
        kept = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        output = model.generate(**kept, max_new_tokens=NEW_TOKENS)
        texts = tokenizer.batch_decode(output[:, kept["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text
    return answers


def chosen(model: Any, tokenizer: Any, prompts: list[str], choices: list[tuple[str, ...]]) -> list[str]:
    """The likeliest choice behind `####`, as the assistant's whole answer."""
    texts = [
        prompt + f"#### {choice}" for prompt, words in zip(prompts, choices, strict=True) for choice in words
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    # Padded on the left, so the answer's two tokens end every row.
    logprobs = logits[:, -3:-1].log_softmax(-1)
    scores = logprobs.gather(-1, inputs["input_ids"][:, -2:, None]).sum((1, 2)).tolist()
    best: list[str] = []
    for words in choices:
        mine, scores = scores[: len(words)], scores[len(words) :]
        best.append(words[mine.index(max(mine))])
    return best


@torch.inference_mode()
def score(model: Any, tokenizer: Any, sets: dict[str, list[problems.Problem]], *, think: bool) -> Scores:
    """Every benchmark's problems, right or wrong."""
    scores: Scores = {}
    model.eval()
    for task, found in sets.items():
        line = f"\n{problems.THINK_LINE}" if think else ""
        prompts = [corpus.chat(problem.prompt + line) for problem in found]
        if task == "order":
            words = chosen(model, tokenizer, prompts, [problem.choices for problem in found])
            scores[task] = [
                (word == problem.answer, False) for word, problem in zip(words, found, strict=True)
            ]
            continue
        rows: list[tuple[bool, bool]] = []
        for text, problem in zip(generated(model, tokenizer, prompts), found, strict=True):
            match = ANSWER.search(text)
            right = match is not None and match[1].strip() == problem.answer
            rows.append((right, text.startswith("think")))
        scores[task] = rows
    return scores


def mcnemar(before: list[tuple[bool, bool]], after: list[tuple[bool, bool]]) -> float:
    """Exact two-sided p that as many turn right as turn wrong."""
    better = sum(not old[0] and new[0] for old, new in zip(before, after, strict=True))
    worse = sum(old[0] and not new[0] for old, new in zip(before, after, strict=True))
    n, low = better + worse, min(better, worse)
    return min(1.0, 2 * sum(comb(n, k) for k in range(low + 1)) / 2**n)


def arms(family: Path, sweep: list[float], seeds: int) -> list[tuple[str, Weights, bool]]:
    """Label, weights and whether prompts end in the think line."""
    target, minuend, subtrahend = (weights(family / role) for role in ("instruct", "grpo", "sft"))
    vector = {name: minuend[name] - subtrahend[name] for name in target}
    plus = added(target, vector, 1.0)
    sized, whole = norm(*vector.values()), norm(*target.values())
    moved = sum(int((tensor != 0).sum()) for tensor in vector.values())
    print(f"‖v‖ {sized:.3f}, ‖v‖/‖target‖ {sized / whole:.4f}, ", end="")
    print(f"values that differ {moved / sum(tensor.numel() for tensor in vector.values()):.1%}\n")
    return [
        ("instruct", target, False),
        ("+v", plus, False),
        ("instruct, think", target, True),
        ("+v, think", plus, True),
        ("−v", added(target, vector, -1.0), False),
        *((f"random {seed}", added(target, noise(vector, seed), 1.0), False) for seed in range(1, seeds + 1)),
        ("grpo", minuend, False),
        ("sft", subtrahend, False),
        *((f"{alpha} v", added(target, vector, alpha), False) for alpha in sweep),
    ]


def main() -> None:
    """Reads the command line, scores every arm, prints the table and keeps every answer's score."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("family", type=Path)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--random", type=int, default=3)
    parser.add_argument("--sweep", type=float, nargs="*", default=[0.25, 0.5, 0.75, 1.5])
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    sets = {task: problems.held_out(task, options.split, options.count) for task in problems.BENCHMARKS}
    model, tokenizer = models.load(options.family / "instruct"), models.tokenizer(options.family / "instruct")
    kept: dict[str, Scores] = {}
    print(f"{options.split} set, {options.count} problems each; % right (exact McNemar p against instruct)\n")
    found = arms(options.family, options.sweep, options.random)
    print("| arm | chain | logic | list | order | worked out: chain/logic/list |\n|---|---|---|---|---|---|")
    for label, tensors, think in found:
        model.load_state_dict({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
        scores = kept[label] = score(model, tokenizer, sets, think=think)
        cells: list[str] = []
        for task, rows in scores.items():
            right = 100 * sum(row[0] for row in rows) / len(rows)
            p = "" if label == "instruct" else f" ({mcnemar(kept['instruct'][task], rows):.1g})"
            cells.append(f"{right:.1f}{p}")
        worked = "/".join(
            f"{sum(row[1] for row in scores[task]) / options.count:.2f}" for task in problems.BENCHMARKS[:3]
        )
        print(f"| {label} | {' | '.join(cells)} | {worked} |", flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")
    answers = {
        label: {task: [int(row[0]) for row in rows] for task, rows in scores.items()}
        for label, scores in kept.items()
    }
    (options.family / f"{options.split}.json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
