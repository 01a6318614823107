"""Models of real shapes with random weights: speed and memory do not ask what the weights know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen2Tokenizer

from lightning_r1.models.load import quiet_transformers

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 192,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    "small": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 384,
        "vocab_size": 2048,
        "tie_word_embeddings": True,
    },
    "middle": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "vocab_size": 8192,
        "tie_word_embeddings": True,
    },
    "qwen2_5_0_5b": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen2_5_1_5b": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen2_5_7b": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
"""Fields of ``Qwen2Config``, as the published models have them; ``tiny`` is for tests, the next two for CPUs."""


def random_model(shape: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A folder with a Qwen2 of this shape, random weights and a byte-level tokenizer; made once.

    Args:
        shape: a name in :data:`SHAPES`.
        folder: is made, unless it holds a model already.
        dtype: of the weights.

    Raises:
        ValueError: for an unknown shape.
    """
    check_shape(shape)
    if (folder / "config.json").is_file():
        return folder
    quiet_transformers()
    tokenizer = byte_tokenizer()
    model = model_of(shape, dtype=dtype, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def model_of(shape: str, *, dtype: torch.dtype = torch.float32, **fields: Any) -> PreTrainedModel:
    """A Qwen2 of this shape with random weights, on the GPU if there is one.

    Args:
        shape: a name in :data:`SHAPES`.
        dtype: of the weights.
        fields: of ``Qwen2Config``, in place of the shape's or beside them.
    """
    check_shape(shape)
    config = AutoConfig.for_model(
        "qwen2",
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        **{**SHAPES[shape], **fields},
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def check_shape(shape: str) -> None:
    """Refuse a shape that is none.

    Raises:
        ValueError: names it, and those there are.
    """
    if shape not in SHAPES:
        raise ValueError(f"benchmark.shape={shape}: expected one of {', '.join(SHAPES)}")


def byte_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's tokenizer with every byte a token and no merges; ``<|endoftext|>`` ends and pads."""
    vocabulary = {piece: index for index, piece in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|endoftext|>", pad_token="<|endoftext|>")
