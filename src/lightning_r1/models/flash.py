"""Which attention a model gets: flash attention where it can run, torch's own kernel elsewhere."""

from __future__ import annotations

import importlib
import importlib.util

import torch

INSTALL = "pip install 'lightning-r1[flash]'"
_TYPES = ("bfloat16", "float16")


def implementation(attention: str, computes_in: str) -> str:
    """transformers' name of an attention.

    Args:
        attention: ``auto``, ``flash`` or ``sdpa``; auto is flash where nothing is in its way.
        computes_in: the type that the model calculates in, which is not that of its weights under mixed precision.

    Raises:
        ValueError: for another name, and for flash with what is in its way and what to do about each.
    """
    if attention not in ("auto", "flash", "sdpa"):
        raise ValueError(f"model.attention={attention!r}: expected auto, flash or sdpa")
    if attention == "sdpa":
        return "sdpa"
    obstacles = what_keeps_flash(computes_in)
    if attention == "flash" and obstacles:
        raise ValueError(f"model.attention=flash: {'; '.join(obstacles)}. Or set model.attention=sdpa")
    return "sdpa" if obstacles else "flash_attention_2"


def what_keeps_flash(computes_in: str) -> list[str]:
    """Everything that keeps flash attention from running here, each with its fix."""
    found = []
    if not torch.cuda.is_available():
        found.append("it needs a CUDA GPU, and torch finds none")
    if computes_in not in _TYPES:
        found.append(
            f"it calculates in bfloat16 or float16, not in {computes_in} (set model.dtype=bfloat16; or with float32 "
            "weights parallel=fsdp parallel.mixed_precision=bf16)"
        )
    if importlib.util.find_spec("flash_attn") is None:
        found.append(f"flash-attn is not installed ({INSTALL})")
    elif not found and (error := _import_error()):
        found.append(
            f"flash-attn is installed and cannot be imported: {error} (build it anew for this torch: {INSTALL})"
        )
    return found


def _import_error() -> str | None:
    """A library that was built for another torch is found, and fails when it is first needed."""
    try:
        importlib.import_module("flash_attn")
    except (ImportError, OSError) as error:
        return str(error).splitlines()[0]
    return None
