"""Loads checkpoints as live models, all with the target's generation config."""

from __future__ import annotations

import copy
import gc
import math
from typing import Any

from ...errors import MismatchError
from ..environment import library, quiet

_PIECE = 1 << 22
# Messages of the allocators that raise a plain RuntimeError: the CPU's, Apple's and cuBLAS's.
_NO_ROOM = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

_SAMPLING = {
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "num_return_sequences",
}  # fmt: skip
# Settings that a study sets itself, or that change no token.
_NO_MATTER = {
    "max_length", "max_new_tokens", "transformers_version", "use_cache", "cache_implementation",
    "cache_config", "return_dict_in_generate", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "disable_compile", "compile_config", "prefill_chunk_size", "_from_model_config",
}  # fmt: skip


def load_model(path: str, target: str, device: str, dtype: str) -> Any:
    """Loads a checkpoint to the study's device, with the target's generation config.

    Raises:
        MismatchError: transformers cannot load it, or the device does not have enough memory.
    """
    import torch

    with quiet():
        try:
            model: Any = library("transformers").AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype)
            )
            model.generation_config = generation_config(target)
            return model.to(device).eval()
        except Exception as error:
            if no_room(error):
                raise MismatchError(
                    f"{path}: {device} does not have enough memory for it as {dtype}; choose another device"
                    " or a smaller dtype"
                ) from error
            # transformers, safetensors and the model's own code raise various errors.
            said = (str(error).strip().splitlines() or [""])[0]
            raise MismatchError(
                f"{path}: transformers cannot load it ({type(error).__name__}: {said}); check the folder"
            ) from error


def generation_config(target: str) -> Any:
    """The target's generation config, without a length, which the study sets."""
    transformers = library("transformers")
    try:
        config: Any = copy.deepcopy(transformers.GenerationConfig.from_pretrained(target))
    except OSError:
        # Older checkpoints have it in the model's config.
        config = transformers.GenerationConfig.from_model_config(
            transformers.AutoConfig.from_pretrained(target)
        )
    # If set, it would take precedence over the limit of each benchmark.
    config.max_new_tokens = None
    return config


def generation_settings(target: str) -> dict[str, dict[str, Any]]:
    """The settings of the target's generation config, without token ids and lengths.

    Those under `used` affect greedy answers (such as a repetition penalty or banned words), in every arm.
    Those under `unused` are about sampling, while all arms decode greedily.
    """
    changed: dict[str, Any] = generation_config(target).to_diff_dict()
    kept = {
        key: one for key, one in changed.items() if key not in _NO_MATTER and not key.endswith("_token_id")
    }
    return {
        "used": {key: one for key, one in kept.items() if key not in _SAMPLING},
        "unused": {key: one for key, one in kept.items() if key in _SAMPLING},
    }


def norms(model: Any) -> dict[str, float]:
    """The norm of each parameter, to which the size of a change is compared."""
    return {name: _norm(one.detach()) for name, one in model.named_parameters()}


def _norm(tensor: Any) -> float:
    torch = library("torch")
    # In pieces: a float64 copy of an embedding would take four times its memory.
    pieces = tensor.reshape(-1).split(_PIECE)
    return math.hypot(*(float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in pieces))


def no_room(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    torch = library("torch")
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in _NO_ROOM)


def make_room() -> None:
    """Frees the memory of a model that is no longer used."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
