"""Models of real shapes with random weights: speed and memory do not ask what the weights know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, Qwen2Tokenizer

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
    "qwen2_5_3b": {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
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
    "qwen2_5_14b": {
        "hidden_size": 5120,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "intermediate_size": 13824,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "qwen2_5_32b": {
        "hidden_size": 5120,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "intermediate_size": 27648,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "llama3_1_8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "llama3_3_70b": {
        "model_type": "llama",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
"""Fields of the transformers config, as the published models have them, ``Qwen2Config`` unless ``model_type`` says
another; ``tiny`` is for tests, the next two for CPUs."""


def shape_config(shape: str, **more: Any) -> PretrainedConfig:
    """The config of a model of this shape.

    Args:
        shape: a name in :data:`SHAPES`.
        more: fields in place of the shape's or beside them.

    Raises:
        ValueError: for an unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"benchmark.shape={shape}: expected one of {', '.join(SHAPES)}")
    fields = {"model_type": "qwen2", **SHAPES[shape], **more}
    return AutoConfig.for_model(
        fields.pop("model_type"),
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **fields,
    )


def random_model(shape: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A folder with a model of this shape, random weights and a byte-level tokenizer; made once.

    Args:
        shape: a name in :data:`SHAPES`.
        folder: is made, unless it holds a model already.
        dtype: of the weights.

    Raises:
        ValueError: for an unknown shape.
    """
    shape_config(shape)  # refuses one that there is not
    if (folder / "config.json").is_file():
        return folder
    quiet_transformers()
    tokenizer = byte_tokenizer()
    model = model_of(shape, dtype=dtype, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def model_of(shape: str, *, dtype: torch.dtype = torch.float32, **fields: Any) -> PreTrainedModel:
    """A model of this shape with random weights, on the GPU if there is one.

    Args:
        shape: a name in :data:`SHAPES`.
        dtype: of the weights.
        fields: as in :func:`shape_config`.
    """
    config = shape_config(shape, bos_token_id=None, **fields)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def byte_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's tokenizer with every byte a token and no merges; ``<|endoftext|>`` ends and pads."""
    vocabulary = {piece: index for index, piece in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<|endoftext|>", pad_token="<|endoftext|>")
