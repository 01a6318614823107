"""Tests that need a GPU: ``make test-gpu``; elsewhere they are left out."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu() -> None:
    """A plain word where there is none."""
    if not torch.cuda.is_available():
        pytest.fail("tests marked gpu need a CUDA GPU, and torch finds none here", pytrace=False)
