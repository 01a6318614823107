"""Making a policy: from a folder or the hub, or from scratch by an architecture's own config class."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from lightning_r1.models.adapter import quiet_bitsandbytes
from lightning_r1.models.flash import implementation

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    dropout: float = 0.0,
    computes_in: str | None = None,
    context: int | None = None,
    four_bit: bool = False,
) -> PreTrainedModel:
    """A causal language model from a folder or the hub.

    Args:
        path: a folder with ``config.json`` and weights, or a hub id.
        dtype: of the weights: float32, bfloat16 or float16.
        attention: ``auto``, ``flash`` or ``sdpa``; auto is flash where it can run.
        dropout: set on every dropout of the architecture; RL wants 0.
        computes_in: the type of its activations, where that is not ``dtype`` (mixed precision).
        context: tokens that it is to read, in place of those that its config says.
        four_bit: store linear layers as NF4 with doubly quantised scales (QLoRA, arXiv 2305.14314), frozen; products
            are made in ``dtype``, and everything else (embeddings, head, norms) has it.

    Raises:
        ValueError: for an unknown dtype or attention, for flash where it cannot run, and for a context that the
            architecture's positions do not reach.
    """
    options = loading_options(
        path, dtype=dtype, attention=attention, dropout=dropout, computes_in=computes_in, context=context
    )
    if four_bit:
        quiet_bitsandbytes()
        # bitsandbytes quantises where the model will be, one layer after the other
        options |= {"quantization_config": _nf4(options["dtype"]), "device_map": {"": _own_device()}}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(path), **options)
    if four_bit:
        _keep_codes(model)
    return model


def hollow_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    dropout: float = 0.0,
    computes_in: str | None = None,
    context: int | None = None,
) -> PreTrainedModel:
    """What :func:`load_model` would give, without its weights: on the ``meta`` device, from ``config.json`` alone."""
    options = loading_options(
        path, dtype=dtype, attention=attention, dropout=dropout, computes_in=computes_in, context=context
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(options.pop("config"), **options)
    with suppress(OSError):  # many have none
        model.generation_config = GenerationConfig.from_pretrained(str(path))
    return model


def loading_options(
    path: str | Path,
    *,
    dtype: str,
    attention: str,
    dropout: float,
    computes_in: str | None = None,
    context: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Config, dtype and attention for ``from_pretrained``; ``fields`` replace the config's own.

    Raises:
        ValueError: as :func:`load_model`.
    """
    weights_dtype, kernel = _dtype(dtype), implementation(attention, computes_in or dtype)  # before the hub is asked
    config = AutoConfig.from_pretrained(str(path), **fields)
    _set_dropout(config, dropout)
    _set_context(config, context)
    attention = _with_caps(config, kernel, attention)
    return {"config": config, "dtype": weights_dtype, "attn_implementation": attention}


def build_model(
    architecture: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    dropout: float = 0.0,
    computes_in: str | None = None,
) -> PreTrainedModel:
    """A causal language model with random weights, drawn from torch's current seed.

    Args:
        architecture: ``model_type`` and the fields of that architecture's transformers config.
        tokenizer: gives the vocabulary size and the special token ids.
        dtype: as in :func:`load_model`.
        attention: as in :func:`load_model`.
        dropout: as in :func:`load_model`.
        computes_in: as in :func:`load_model`.
    """
    fields = dict(architecture)
    config = AutoConfig.for_model(
        fields.pop("model_type"),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **fields,
    )
    _set_dropout(config, dropout)
    kernel = implementation(attention, computes_in or dtype)
    return AutoModelForCausalLM.from_config(config, dtype=_dtype(dtype), attn_implementation=kernel)


def context_length(path: str | Path, said: int | None = None) -> float:
    """Tokens that a model in a folder or on the hub can read: said, or its config's; infinite where that has none."""
    if said:
        return said
    config = AutoConfig.from_pretrained(str(path)).get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or math.inf


def stored_dtype(path: str | Path) -> str:
    """The type of a model's weights as its config tells it; float32 where it says nothing."""
    told = getattr(AutoConfig.from_pretrained(str(path)), "dtype", None)
    return str(told or torch.float32).removeprefix("torch.")


def stops_of(path: str | Path | None) -> list[int]:
    """Token ids at which a model's own ``generation_config.json`` stops; empty where it has none."""
    try:
        stops = GenerationConfig.from_pretrained(str(path)).eos_token_id if path is not None else None
    except OSError:
        return []
    return [stops] if isinstance(stops, int) else list(stops or ())


def quiet_transformers() -> None:
    """No progress bars for loading and saving; errors still speak."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _keep_codes(model: PreTrainedModel) -> None:
    """On some CPUs bitsandbytes would pack the codes anew, with coarser scales, as soon as the model samples."""
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def _own_device() -> str:
    """Of this process, before a trainer has told it."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ValueError(f"model.dtype={name!r}: expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _with_caps(config: Any, implementation: str, asked: str) -> str:
    """Gemma 2 caps its attention scores; torch's kernel cannot, and would not say so."""
    if implementation != "sdpa" or not getattr(config, "attn_logit_softcapping", None):
        return implementation
    if asked == "sdpa":
        raise ValueError(
            f"model.attention=sdpa: {config.model_type} has attn_logit_softcapping, which torch's kernel leaves out "
            "without a word; use model.attention=auto"
        )
    return "eager"


def _set_dropout(config: Any, dropout: float) -> None:
    """Every dropout, whatever the architecture calls it."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, dropout)


def _set_context(config: Any, context: int | None) -> None:
    """Rotary positions are computed for any place; those that are learned, or stretched by the context, are not."""
    text = config.get_text_config(decoder=True)
    if not context or context == getattr(text, "max_position_embeddings", None):
        return
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("default", "llama3"):
        raise ValueError(
            f"model.context={context}: the positions of {config.model_type} are learned or depend on its config's "
            "context; set it to null"
        )
    text.max_position_embeddings = context
