"""Whether two tokenizers, or two sets of weights, are the same: what a comparison of models rests on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

_SAMPLES, _SAMPLE_BYTES = 64, 2**16
_PROBE = "Wait, 2 * 15?1=9 (1.5) x\n\nLet's see: Ünïcode 42.<think></think>"


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Ids that the tokenizer can make; a model's head may have more."""
    return max(tokenizer.get_vocab().values()) + 1


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Twelve hex digits over the token of every id, how a text is cut, and which token ends a text.

    Models whose tokenizers agree in it mean the same by every id, however their heads are padded.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    probe = tokenizer.encode(_PROBE, add_special_tokens=False)
    contract = json.dumps([vocabulary, probe, tokenizer.eos_token_id])
    return hashlib.sha256(contract.encode()).hexdigest()[:12]


def weights_hash(model: nn.Module) -> str:
    """Twelve hex digits over name, type, shape and bits of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


class Base:
    """The model that an adapter stands on.

    Args:
        path: a folder, or a hub id.
        fingerprint: of its files, if known; else they are read when it is asked for, and have been loaded by then.
    """

    def __init__(self, path: str, fingerprint: str | None = None) -> None:
        self.path, self._fingerprint = path, fingerprint

    def told(self) -> dict[str, str]:
        """``path`` and ``fingerprint``."""
        if self._fingerprint is None:
            self._fingerprint = files_hash(self.path)
        return {"path": self.path, "fingerprint": self._fingerprint}


def files_hash(path: str | Path) -> str:
    """Twelve hex digits over a stored model: its config, and of each file of weights name, size and 64 samples.

    No weight is loaded, and large files are not read through: training moves every number, so that 64 blocks of 64 KiB
    tell two models apart.

    Args:
        path: a folder, or a hub id whose files are here already.
    """
    config = Path(str(cached_file(str(path), "config.json")))
    digest = hashlib.sha256(config.read_bytes())
    for file in sorted(file for file in config.parent.iterdir() if file.suffix in (".safetensors", ".bin")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for sample in range(_SAMPLES):
                content.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(content.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]
