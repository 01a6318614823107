"""Peaks that a utilisation is a share of."""

from __future__ import annotations

import pytest
import torch

from lightning_r1.parallel.speed import measured_flops, peak_flops, published_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", None),
    ],
)
def test_published_peaks(name: str, peak: float | None) -> None:
    assert published_flops(name) == peak


def test_a_cpus_peak_is_measured() -> None:
    assert peak_flops(torch.device("cpu")) is None
    assert 1e7 < measured_flops(64, repeats=2) < 1e15
