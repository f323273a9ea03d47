"""Builds prompts with the target's chat template, and adds the line of the think arms."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import MismatchError, UsageError
from ..environment import library
from .tasks import seed

if TYPE_CHECKING:
    from .tasks import Loaded

Turn = dict[str, str]
"""One turn of a conversation: `role` and `content`."""

_ASKS = re.compile(
    r"step[- ]by[- ]step|let['\u2019]?s think|chain[- ]of[- ]thought"
    r"|think (?:it |this )?(?:through|aloud|carefully)"
    r"|(?:show|write out|explain) (?:all |each |every |your |the )+(?:work|working|steps?|reasoning|thinking)"
    r"|reason (?:step|through|carefully)|one step at a time",
    re.IGNORECASE,
)


def read_tokenizer(target: str) -> Any:
    """Loads the target's tokenizer, which is used for all arms.

    Raises:
        MismatchError: it cannot be loaded, or has no chat template or no end token.
    """
    try:
        tokenizer: Any = library("transformers").AutoTokenizer.from_pretrained(target)
    except Exception as error:
        raise MismatchError(
            f"{target}: its tokenizer cannot be loaded ({_first_line(error)}); give a target that"
            " transformers can load"
        ) from error
    if not tokenizer.chat_template:
        raise MismatchError(
            f"{target}: its tokenizer has no chat template, which prompts are made with; choose an instruct"
            " model, or add chat_template.jinja to the folder"
        )
    if tokenizer.eos_token_id is None:
        raise MismatchError(
            f"{target}: its tokenizer names no end token; add eos_token to tokenizer_config.json"
        )
    return tokenizer


def ask(tokenizer: Any, turns: list[Turn], *, line: str | None, add_generation_prompt: bool = True) -> str:
    """The prompt for a conversation; `line`, if given, is added at the end of the last user turn.

    Without `add_generation_prompt` the last turn is the beginning of the answer, which the model continues.
    """
    turns = [dict(turn) for turn in turns]
    if line is not None:
        last = max(at for at, turn in enumerate(turns) if turn["role"] == "user")
        turns[last]["content"] += f"\n{line}"
    how: Any = {
        "tokenize": False,
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": not add_generation_prompt,
    }
    try:
        return tokenizer.apply_chat_template(turns, **how)
    except library("jinja2").TemplateError:
        if turns[0]["role"] != "system" or len(turns) < 2:
            raise
        # Some templates do not support a system turn; its text is then put before the first user turn.
        first, second, *rest = turns
        second["content"] = f"{first['content']}\n\n{second['content']}"
        return tokenizer.apply_chat_template([second, *rest], **how)


def render(loaded: Loaded, tokenizer: Any, line: str | None) -> list[tuple[str, str]]:
    """Every request of a benchmark as (prompt, continuation to score); the latter is empty for generation."""
    found: list[tuple[str, str]] = []
    seed(loaded.tasks)
    for task in loaded.tasks:
        try:
            task.build_all_requests(
                limit=loaded.benchmark.limit,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
                chat_template=partial(ask, tokenizer, line=line),
            )
        except Exception as error:
            raise UsageError(
                f"benchmark {loaded.benchmark.id!r}: the prompts of {task.task_name} with {loaded.shots}"
                f" shots cannot be built ({_first_line(error)}); set other shots or choose another task"
            ) from error
        for request in task.instances:
            prompt, rest = request.args[0], request.args[1]
            found.append((prompt, rest if isinstance(rest, str) else ""))
    return found


def check(loaded: Loaded, tokenizer: Any, context: int, think: str | None) -> list[tuple[str, str]]:
    """Renders the plain prompts and refuses those that would make the comparison meaningless.

    Args:
        loaded: the benchmark.
        tokenizer: the target's tokenizer.
        context: the length of the target's context in tokens.
        think: the line of the think arms; None if the study has none.

    Raises:
        UsageError: plain prompts already ask for steps, or a prompt and its answer may not fit the context.
    """
    plain = render(loaded, tokenizer, None)
    if think is not None:
        asking = [
            prompt for prompt, _ in plain if _ASKS.search(prompt) or think.casefold() in prompt.casefold()
        ]
        # Such words in a few prompts come from the documents; in most of them, from the task.
        if 2 * len(asking) > len(plain):
            said = _ASKS.search(asking[0])
            raise UsageError(
                f"benchmark {loaded.benchmark.id!r}: its plain prompts already ask for steps"
                f" ({said[0] if said else think!r}), so the think arms could not differ; choose a task that"
                " does not, or set arms.think to false"
            )
    longest = plain if think is None else render(loaded, tokenizer, think)
    most = max(count(tokenizer, prompt + rest) for prompt, rest in longest)
    room = loaded.benchmark.cap or 0 if loaded.kind == "generate" else 0
    if most + room > context:
        raise UsageError(
            f"benchmark {loaded.benchmark.id!r}: its longest prompt has {most} tokens"
            + (f" and max_new_tokens is {room}" if room else "")
            + f", more than the target's context of {context}; lower max_new_tokens or shots"
        )
    return plain


def count(tokenizer: Any, text: str) -> int:
    """The number of tokens of a prompt, which may already begin with the beginning-of-sequence token."""
    begins = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return len(tokenizer(text, add_special_tokens=not begins)["input_ids"])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
