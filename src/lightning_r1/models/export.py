"""Leaving with a plain transformers folder, which everything else can load."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_r1.models.adapter import has_adapter
from lightning_r1.models.adapter_state import save_adapter
from lightning_r1.models.codec import PROBE, Codec
from lightning_r1.models.live_weights import whole_weights
from lightning_r1.models.merging import plain_shell
from lightning_r1.models.policy import Policy
from lightning_r1.models.tokenizer import load_tokenizer
from lightning_r1.models.turns import opening

CARD = "lightning_r1.json"
_MOST_A_FILE = "5GB"


def export_model(
    policy: Policy, codec: Codec, folder: Path, *, card: Mapping[str, Any], weights: dict[str, Tensor] | None = None
) -> Path:
    """Write config, weights, tokenizer, chat template and sampling defaults, all or nothing; an adapter is merged.

    The chat template renders this project's template, the response template takes thinking and answer apart, and
    ``generation_config`` holds the R1 paper's evaluation sampling (temperature 0.6, top-p 0.95).

    Args:
        policy: the trained model.
        codec: its template and tokenizer.
        folder: is replaced if it exists.
        card: facts to keep beside the weights, in ``lightning_r1.json`` (phase, commit, ...).
        weights: of the transformers model, if its own are sharded; see :func:`.whole_weights`.

    Returns:
        ``folder``.

    Raises:
        ValueError: if transformers would read another tokenizer back, or a chat would give other prompts than training
            has seen; the folder is left as it was.
    """
    with replacing(folder) as beside:
        save_weights(policy.model, beside, weights)
        GenerationConfig(
            do_sample=True,
            temperature=0.6,
            top_p=0.95,
            top_k=0,  # where nothing is said, transformers takes the likeliest 50 only
            eos_token_id=list(codec.stop_ids),
            pad_token_id=codec.pad_id,
            bos_token_id=codec.tokenizer.bos_token_id,
        ).save_pretrained(beside)
        _for_strangers(codec).save_pretrained(beside)
        _check_readable(beside, policy, codec)
        write_card(beside, codec, card)
    return folder


def export_adapter(policy: Policy, folder: Path, weights: dict[str, Tensor]) -> Path:
    """Write the adapter alone, in PEFT's format, for who has the base; all or nothing.

    Args:
        policy: with an adapter.
        folder: is replaced if it exists.
        weights: of the adapter, see :func:`.adapter_weights`.

    Returns:
        ``folder``.
    """
    with replacing(folder) as beside:
        save_adapter(policy.model, beside, weights)
    return folder


def save_weights(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None) -> None:
    """Write config and weights, in files of at most 5 GB."""
    if has_adapter(model):
        weights = whole_weights(model, keep=True) if weights is None else weights
        model = plain_shell(model)
    model.save_pretrained(folder, state_dict=weights, max_shard_size=_MOST_A_FILE)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``folder`` if nothing goes wrong."""
    beside, replaced = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".replaced")
    shutil.rmtree(beside, ignore_errors=True)
    yield beside
    # at no moment is there neither the old folder nor the new one
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    beside.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _for_strangers(codec: Codec) -> PreTrainedTokenizerBase:
    """The tokenizer with what a chat needs: how a question is asked, and how its answer is read."""
    tokenizer = copy.deepcopy(codec.tokenizer)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {str(tokenizer.eos_token): 0}
    ends |= {str(tokenizer.decode([index])): 0 for index in (*codec.stop_ids, codec.pad_id) if index in special}
    vars(tokenizer)["chat_template"] = codec.template.chat_template(bos=opening(codec.tokenizer))
    vars(tokenizer)["response_template"] = codec.template.response_template(tuple(ends))
    return tokenizer


def _check_readable(folder: Path, policy: Policy, codec: Codec) -> None:
    """transformers replaces the tokenizer of some architectures by their own when it loads them."""
    tokenizer = load_tokenizer(folder)
    if Codec(codec.template, tokenizer).probe() != codec.probe():
        raise ValueError(
            f"model_type={policy.model.config.model_type!r}: transformers reads another tokenizer back than the one "
            f"that was saved, so the export would be useless. Use another architecture for this tokenizer."
        )
    asked = [{"role": "user", "content": PROBE}]
    if tuple(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)) != codec.probe():
        raise ValueError(
            f"template={codec.template.name}: as a chat template it gives other tokens than in training, for this "
            "tokenizer puts more around a text than BOS; the export would be asked what it has never seen. Use another "
            "tokenizer."
        )


def write_card(folder: Path, codec: Codec, card: Mapping[str, Any]) -> None:
    """Leave facts beside the weights, the template's contract among them."""
    facts = {**card, "template": codec.template.name, "template_fingerprint": codec.fingerprint()}
    (folder / CARD).write_text(json.dumps(facts, indent=2) + "\n")


def read_card(folder: str | Path) -> dict[str, Any]:
    """The facts that :func:`export_model` left, or nothing for a foreign model."""
    path = Path(folder) / CARD
    return json.loads(path.read_text()) if path.is_file() else {}
