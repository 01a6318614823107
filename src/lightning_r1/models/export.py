"""Leaving with a plain transformers folder, which everything else can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy

CARD = "lightning_r1.json"


def export_model(policy: Policy, codec: Codec, folder: Path, *, card: Mapping[str, Any]) -> Path:
    """Write config, weights, tokenizer, chat template and sampling defaults, all or nothing.

    The chat template renders this project's template, and ``generation_config`` holds the R1
    paper's evaluation sampling (temperature 0.6, top-p 0.95).

    Args:
        policy: the trained model.
        codec: its template and tokenizer.
        folder: is replaced if it exists.
        card: facts to keep beside the weights, in ``lightning_r1.json`` (phase, commit, ...).

    Returns:
        ``folder``.
    """
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    policy.model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        eos_token_id=list(codec.stop_ids),
        pad_token_id=codec.pad_id,
        bos_token_id=codec.tokenizer.bos_token_id,
    )
    policy.model.save_pretrained(beside)
    codec.tokenizer.chat_template = codec.template.chat_template()
    codec.tokenizer.save_pretrained(beside)
    facts = {**card, "template": codec.template.name, "template_fingerprint": codec.fingerprint()}
    (beside / CARD).write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def read_card(folder: str | Path) -> dict[str, Any]:
    """The facts that :func:`export_model` left, or nothing for a foreign model."""
    path = Path(folder) / CARD
    return json.loads(path.read_text()) if path.is_file() else {}
