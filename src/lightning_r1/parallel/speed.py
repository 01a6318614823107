"""How fast a device multiplies matrices at best: what a utilisation is a share of."""

from __future__ import annotations

import time

import torch

# dense bfloat16 of the makers' data sheets, in FLOP/s; the first name that occurs in the device's counts
_PUBLISHED = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "4090": 165e12, "3090": 71e12,
}  # fmt: skip


def published_flops(device_name: str) -> float | None:
    """Peak of a GPU with tensor cores in bfloat16; None for one that is not in the table.

    >>> published_flops("NVIDIA H200") == 989e12, published_flops("Voodoo 2")
    (True, None)
    """
    return next((peak for name, peak in _PUBLISHED.items() if name in device_name), None)


def peak_flops(device: torch.device) -> float | None:
    """Published peak of a GPU; of a CPU None: its makers publish none that counts its threads."""
    return published_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def measured_flops(size: int = 1024, *, dtype: torch.dtype = torch.float32, repeats: int = 5) -> float:
    """The best of a few products of square matrices on a CPU, with torch's threads."""
    left, right = torch.randn(2, size, size).to(dtype)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
