"""Every test: one thread, fixed seeds, no network, quiet transformers."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random
from pathlib import Path

import pytest
import torch

from helpers.prompts import mini_codec
from helpers.runs import coin_base
from helpers.sandboxes import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401  (hooks of pytest)
from lightning_r1.models.codec import Codec
from lightning_r1.models.load import quiet_transformers
from lightning_r1.train import train

torch.set_num_threads(1)
quiet_transformers()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same randomness for every test, whatever ran before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def codec() -> Codec:
    """The miniature's template and tokenizer; EOS is the only stop token."""
    return mini_codec()


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base, trained on raw text about the coin task through the real recipe: a few seconds."""
    output = tmp_path_factory.mktemp("base")
    train(coin_base(output))
    return output / "coin" / "base" / "model"
