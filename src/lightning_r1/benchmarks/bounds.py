"""What a rollout cannot go below: the bytes it has to read, and the arithmetic it has to do, on this machine.

Decoding T tokens of N rows together reads, at every step, each weight once and the keys and values of each row that
is still being written; with t tokens behind a prompt of P:

    bytes  = sum over steps of  weights + sum over live rows of (P + t) * cache bytes a token
    FLOP   = 2 * weights in products * (prompt tokens + completion tokens)
             + 4 * layers * heads * head size * (tokens attended to, summed over the completions' tokens)

The bound is the longer of bytes over the measured bandwidth and FLOP over the measured rate of a product.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from lightning_r1.types import Group


@dataclass(frozen=True)
class Machine:
    """What was measured of a device, by as many threads as the rollout has."""

    bytes_per_s: float
    flop_per_s: float


@dataclass(frozen=True)
class Bound:
    """Least seconds of one rollout."""

    memory_s: float
    arithmetic_s: float

    @property
    def seconds(self) -> float:
        """The tighter of the two."""
        return max(self.memory_s, self.arithmetic_s)

    @property
    def kind(self) -> str:
        """Which one that is."""
        return "memory" if self.memory_s >= self.arithmetic_s else "arithmetic"


def measure_machine(device: torch.device, dtype: torch.dtype, *, mib: int = 512, size: int = 2048) -> Machine:
    """Read a large tensor, multiply large matrices; the best of several turns.

    Args:
        device: to measure.
        dtype: of the weights.
        mib: of the tensor: more than any cache of the processor.
        size: of the square matrices.
    """
    large = torch.ones(mib * 2**20 // 4, device=device)
    square = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(square)
    return Machine(
        bytes_per_s=large.numel() * 4 / _fastest(large.sum, device),
        flop_per_s=2 * size**3 / _fastest(lambda: torch.mm(square, square, out=out), device),
    )


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def bound(model: PreTrainedModel, groups: Sequence[Group], machine: Machine) -> Bound:
    """Of the completions that were written, all rows together."""
    config: Any = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = next(model.parameters()).element_size()
    cache_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * size * width
    ends: Any = model
    head, embedding = ends.get_output_embeddings().weight, ends.get_input_embeddings().weight
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # of an embedding of its own only the rows of the tokens are read
    in_products = parameters - (0 if head is embedding else embedding.numel())
    lengths = [(len(group.prompt.token_ids), len(one.token_ids)) for group in groups for one in group.completions]
    longest = max(length for _, length in lengths)
    # the token at place t > 0 is predicted from P + t tokens, its own predecessor included; the first by the prefill
    attended = sum(prompt * (length - 1) + length * (length - 1) // 2 for prompt, length in lengths)
    prompts = [len(group.prompt.token_ids) for group in groups]
    tokens = sum(prompts) + sum(length - 1 for _, length in lengths)
    read = longest * in_products * width + attended * cache_bytes
    in_prompts = sum(prompt * (prompt + 1) // 2 for prompt in prompts)
    flop = 2 * in_products * tokens + 4 * config.num_hidden_layers * heads * size * (attended + in_prompts)
    return Bound(read / machine.bytes_per_s, flop / machine.flop_per_s)
