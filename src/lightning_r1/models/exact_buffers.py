"""Buffers that keep their precision, whatever the weights are converted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class ExactBuffers(nn.Module):
    """A module below which no buffer that a constructor made is rounded.

    transformers makes rotary frequencies in float32 whatever the type of the weights, and no checkpoint holds them;
    ``module.to(torch.bfloat16)``, which is how ``trainer.precision=bf16-true`` converts a model, would round them to
    8 bits. At position 2,000 that turns the fastest of them by radians, and the exported model, whose constructor
    makes them again, would be another one than the one that was trained.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        made = [
            (module, name, buffer)
            for module in self.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name in module._non_persistent_buffers_set and buffer.is_floating_point()
        ]
        out: Any = super()._apply(fn, recurse)
        for module, name, buffer in made:
            now = module._buffers[name]
            assert now is not None
            if torch.finfo(now.dtype).bits < torch.finfo(buffer.dtype).bits:
                module._buffers[name] = buffer.to(now.device)
        return out
