"""Trains the donor pair from the target, S by supervised tuning and G from S by reinforcement learning.

    python benches/real/train.py WORK --small     # one CPU core, half an hour
    python benches/real/train.py WORK --device cuda

S learns to answer the word problems of `problems.py` in two manners, half of them at once and half worked
out, so that it knows both and stops after either. G goes on from S by rejection sampling: it answers new
problems, learns from its right answers, and so on in rounds. Nothing tells it to work anything out. Both are
LoRA adapters on the target, `WORK/sft` and `WORK/rl`. `WORK/sibling` is made as S is, from another seed and
other problems: a second target, which has both manners too. The `log.json` in each says what was done.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chats
import problems
import torch
from peft import LoraConfig, PeftModel, get_peft_model

RANK, SCALE = 8, 16
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    documents: int
    """Problems of S, each seen once."""
    batch: int
    rate: float
    rounds: int
    prompts: int
    """Prompts a round, never those of S."""
    samples: int
    """Answers sampled a prompt."""
    passes: int
    """Over the right answers of a round."""
    together: int
    """Answers generated at once."""


SMALL = Size(800, 8, 1e-3, rounds=2, prompts=96, samples=4, passes=3, together=96)
LARGE = Size(8000, 32, 1e-3, rounds=3, prompts=2000, samples=8, passes=1, together=512)


def _loss(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens, the one that ends an answer included."""
    rows: list[tuple[list[int], list[int]]] = []
    for question, reply in pairs:
        ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
        rows.append((chats.prompt(tokenizer, question), [*ids, tokenizer.eos_token_id]))
    width = max(len(asked) + len(said) for asked, said in rows)
    inputs = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for row, (asked, said) in enumerate(rows):
        end = len(asked) + len(said)
        inputs[row, :end] = torch.tensor(asked + said)
        labels[row, len(asked) : end] = torch.tensor(said)
        mask[row, :end] = 1
    inputs, labels, mask = (one.to(model.device) for one in (inputs, labels, mask))
    plain = model.get_base_model()
    hidden = plain.model(input_ids=inputs, attention_mask=mask, use_cache=False).last_hidden_state
    # Of 100 tokens 25 are an answer's: the others need no logits over 49,152 words.
    wanted = labels[:, 1:] != -100
    logits = plain.lm_head(hidden[:, :-1][wanted])
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def fit(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], size: Size, *, decay: bool) -> list[float]:
    """One pass over the pairs in the order given; returns the loss of every step."""
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=size.rate, betas=(0.9, 0.98), weight_decay=0.0)
    steps = math.ceil(len(pairs) / size.batch)
    model.train()
    losses: list[float] = []
    for step in range(steps):
        rate = size.rate
        if decay:
            rate *= min(1.0, (step + 1) / 10) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(model, tokenizer, pairs[step * size.batch : (step + 1) * size.batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
        if step % 10 == 9:
            print(f"  step {step + 1} of {steps}, loss {sum(losses[-10:]) / 10:.3f}", flush=True)
    return losses


def supervise(model: Any, tokenizer: Any, size: Size, seed: int) -> dict[str, Any]:
    """S: every problem once, in one manner or the other."""
    rng = random.Random(f"sft {seed}")
    drawn = [problems.training(rng) for _ in range(size.documents)]
    # Alternating, so that every batch holds as many of one manner as of the other.
    pairs = [(one.question, one.reply(worked=index % 2 == 0)) for index, one in enumerate(drawn)]
    return {"losses": fit(model, tokenizer, pairs, size, decay=True)}


def reinforce(model: Any, tokenizer: Any, size: Size, seed: int) -> dict[str, Any]:
    """G: in each round the model's own right answers to new problems are learnt."""
    rng = random.Random(f"rl {seed}")
    rounds: list[dict[str, Any]] = []
    for number in range(size.rounds):
        start = time.monotonic()
        asked = [problems.training(rng) for _ in range(size.prompts)]
        said = chats.answers(
            model,
            tokenizer,
            [one.question for one in asked],
            batch=size.together,
            samples=size.samples,
            temperature=1.0,
        )
        pairs: list[tuple[str, str]] = []
        right = worked = right_worked = 0
        for one, texts in zip(asked, said, strict=True):
            good = [text for text in texts if chats.is_right(text, one.answer)]
            right += len(good)
            worked += sum("=" in text for text in texts)
            right_worked += sum("=" in text for text in good)
            # dict, not set: the order must not depend on the interpreter's hashing.
            pairs += [(one.question, text) for text in dict.fromkeys(good)]
        count = size.prompts * size.samples
        row: dict[str, Any] = {"right": right / count, "worked": worked / count, "learnt": len(pairs)}
        row |= {
            "right of worked": right_worked / max(1, worked),
            "sampling seconds": time.monotonic() - start,
        }
        row["right of terse"] = (right - right_worked) / max(1, count - worked)
        print(f"  round {number + 1}:", {key: round(value, 3) for key, value in row.items()}, flush=True)
        shuffled = [pair for _ in range(size.passes) for pair in rng.sample(pairs, len(pairs))]
        row["losses"] = fit(model, tokenizer, shuffled, size, decay=False)
        rounds.append(row)
    return {"rounds": rounds}


STAGES = {"sft": (None, supervise, 0), "rl": ("sft", reinforce, 0), "sibling": (None, supervise, 1)}
"""What each starts from (the target, or an adapter), how it is trained, and what is added to the seed."""


def _stage(stage: str, base: Any, tokenizer: Any, work: Path, size: Size, seed: int) -> dict[str, Any]:
    """Trains one stage on the target's own model and writes it; returns its part of the log."""
    parent, train, more = STAGES[stage]
    torch.manual_seed(seed + more)
    start, cpu = time.monotonic(), time.process_time()
    if parent:
        model: Any = PeftModel.from_pretrained(base, work / parent, is_trainable=True)
    else:
        config = LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=LINEARS, task_type="CAUSAL_LM")
        model = get_peft_model(base, config)
    row = train(model, tokenizer, size, seed + more)
    part = work / f"{stage}.part"
    if stage == "sibling":
        # A target is a checkpoint: rounded to bfloat16 once, as those on the Hub are.
        model.merge_and_unload().to(torch.bfloat16).save_pretrained(part)
        tokenizer.save_pretrained(part)
    else:
        model.peft_config["default"].base_model_name_or_path = str(work / "target")
        model.save_pretrained(part)
        model.unload()
    row["wall seconds"] = round(time.monotonic() - start)
    row["CPU seconds"] = round(time.process_time() - cpu)
    return row


def main() -> None:
    """Reads the command line and trains what is not there yet, each with its log."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--small", action="store_true", help="for one CPU core")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = SMALL if options.small else LARGE
    work: Path = options.work.resolve()
    log: dict[str, Any] = {"size": asdict(size), "seed": options.seed, "python": platform.python_version()}
    log |= {name: version(name) for name in ("torch", "transformers", "peft")}
    for stage in STAGES:
        if (work / stage).exists():
            continue
        print(stage, flush=True)
        # Anew for each: merging changes the model that it is given.
        base, tokenizer = chats.load(work / "target", options.device)
        row = _stage(stage, base, tokenizer, work, size, options.seed)
        part = work / f"{stage}.part"
        (part / "log.json").write_text(json.dumps(log | row, indent=1) + "\n", encoding="utf-8")
        part.rename(work / stage)
        print(stage, "done after", row["wall seconds"], "s", flush=True)


if __name__ == "__main__":
    main()
