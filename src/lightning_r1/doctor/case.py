"""A model, a batch and settings, without a run: what stands on a device, and what changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from lightning_r1.models.footprint import Adapter, Footprint, ModelSize, Sharing, on_ranks, with_adapter
from lightning_r1.models.memory_estimate import Arrangement, Work, kept_by_host, update_peak
from lightning_r1.models.saving import Checkpointing
from lightning_r1.models.token_budget import split_by_tokens

Sampler = Literal["here", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a rollout samples and its updates learn from, at their limits."""

    rows: int
    """Of one optimizer step, over all ranks."""
    updates: int
    """Optimizer steps of a rollout."""
    prompt: int
    """Tokens."""
    completion: int
    """Tokens."""
    group_size: int = 1
    """G: rows of a prompt."""
    sampled: int = 0
    """Rows of a rollout; 0 where nothing is sampled."""
    scorings: int = 0
    """Forwards of a row beside its update's: by the reference, and by the policy before its updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user can turn to make a run fit."""

    micro_batch_tokens: int
    checkpointing: Checkpointing = False
    bits: int = 32
    """Of AdamW's averages."""
    masters: bool = False
    """Float32 copies of weights that have fewer bits."""
    sharing: Sharing = "single"
    shards: int = 0
    """Ranks that share a whole model, where several groups of them have one each; 0: all."""
    mixed: bool = False
    """Shards in float32, gathered in bfloat16."""
    cpu_offload: bool = False
    """Shards, their gradients and the optimizer's state on the host."""
    adapter: Adapter = "none"
    rank: int = 32
    """Of the adapter."""
    max_rows: int = 512
    """Decoded together on a rank."""
    sampler: Sampler = "here"
    """A server has devices of its own: half of them."""


@dataclass(frozen=True)
class Case:
    """One question to the estimates.

    Args:
        config: of the model, transformers'.
        size: of the model as it is loaded; an adapter that a setting adds is not in it.
        dtype: of the weights as they are loaded.
        batch: the work.
        gpus: of the run, servers' included.
        rollout: gives the bytes of a rollout in this process above whole weights, of so many rows decoded together;
            0 where there is none.
        frozen: bytes of other models that are shared over ranks as the policy is.
        whole: bytes of other models that each rank has for itself.
        beside: bytes of an update that are there whatever the settings (a rollout beside it).
        autocast: to this type, with mixed precision of the Trainer.
        arrangement: of rows in a micro-batch.
        head: as in :func:`.update_peak`.
        on_cpu: whether the device is the host.
        besides: overrides that a change needs in this run, by the change.
        peak: measures an update, see :func:`.update_peak`.
    """

    config: Any
    size: ModelSize
    dtype: torch.dtype
    batch: Batch
    gpus: int = 1
    rollout: Callable[[int], int] = lambda rows: 0
    frozen: int = 0
    whole: int = 0
    beside: int = 0
    autocast: torch.dtype | None = None
    arrangement: Arrangement = "padded"
    head: bool = True
    on_cpu: bool = False
    besides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    peak: Callable[..., int] = update_peak
    known: dict[Any, int] = field(default_factory=dict, compare=False, repr=False)

    def ranks(self, settings: Settings) -> int:
        """Devices that train."""
        return max(1, self.gpus // 2) if settings.sampler == "server" else self.gpus

    def shards(self, settings: Settings) -> int:
        """Devices over which a model is cut, where it is."""
        return min(settings.shards or self.gpus, self.ranks(settings))

    def rows(self, settings: Settings) -> int:
        """Of one optimizer step on one rank."""
        return -(-self.batch.rows // self.ranks(settings))

    def micro_batches(self, settings: Settings) -> int:
        """Of an update on a rank."""
        rows, tokens = self.rows(settings), self.batch.prompt + self.batch.completion
        if self.arrangement == "shared prefix":
            return -(-rows // self.work(settings).rows)
        return len(split_by_tokens([tokens] * rows, settings.micro_batch_tokens))

    def work(self, settings: Settings) -> Work:
        """The largest micro-batch that can occur: rows at their limit, dealt as the run deals them."""
        batch, budget, rows = self.batch, settings.micro_batch_tokens, self.rows(settings)
        if self.arrangement == "shared prefix":
            together = min(rows, batch.group_size, max(1, (budget - batch.prompt) // max(1, batch.completion)))
            return Work(together, batch.prompt, batch.completion, "shared prefix")
        longest = batch.prompt + batch.completion
        # shorter rows fill the budget better than those at the limit do
        tokens = max(longest, min(budget, rows * longest))
        largest = max(1, tokens // longest)
        width = tokens // largest
        prompt = max(1, min(batch.prompt, width - 1))
        return Work(largest, prompt, width - prompt, self.arrangement)

    def dtype_under(self, settings: Settings) -> torch.dtype:
        """In which the model is computed."""
        return torch.bfloat16 if settings.mixed else self.dtype

    def size_under(self, settings: Settings) -> ModelSize:
        """Of what is kept; mixed shards are float32."""
        size = with_adapter(self.size, settings.adapter, settings.rank)
        return in_float32(size) if settings.mixed else size

    def activations(self, settings: Settings) -> int:
        """Peak of an update above weights and gradients."""
        work, dtype, accumulates = self.work(settings), self.dtype_under(settings), self._accumulates(settings)
        key = (work, dtype, accumulates, bool(settings.checkpointing))
        if key not in self.known:
            self.known[key] = self.peak(
                self.config, work, dtype=dtype, autocast=self.autocast, checkpointing=bool(settings.checkpointing),
                accumulates=accumulates, head=self.head,
            )  # fmt: skip
        offloads = settings.checkpointing == "offload" and not self.on_cpu
        return self.known[key] - (kept_by_host(self.config, work, dtype, on_device=2) if offloads else 0)

    def _accumulates(self, settings: Settings) -> bool:
        # sharded gradients are reduced layer by layer, and those of an adapter are small; with masters each
        # micro-batch's are new
        if settings.sharing == "fsdp" or settings.adapter != "none" or self.size.gradients < self.size.weights / 2:
            return True
        return self.micro_batches(settings) > 1 and not settings.masters

    def footprint(self, settings: Settings) -> Footprint:
        """Bytes on a device that trains."""
        size = self.size_under(settings)
        masters = settings.masters and not settings.mixed
        one = Footprint(
            weights=size.weights,
            # where gradients are added up in float32, those of a micro-batch stand beside the sum
            gradients=size.gradients + (size.masters if masters else 0),
            optimizer=size.optimizer(settings.bits, masters=masters),
            frozen=self.frozen,
            whole=self.whole,
            activations=self.activations(settings) + self.beside,
            rollout=self.rollout(settings.max_rows) if settings.sampler == "here" else 0,
        )
        ranks = self.shards(settings) if settings.sharing == "fsdp" else self.ranks(settings)
        shared = on_ranks(one, size, settings.sharing, ranks, gathered=0.5 if settings.mixed else 1.0)
        if settings.cpu_offload:
            shared = replace(shared, weights=0, gradients=0, optimizer=0, frozen=0)
        return shared

    def host(self, settings: Settings) -> int:
        """Bytes that a rank keeps in the host's memory."""
        kept = 0
        if settings.cpu_offload:
            kept += self.footprint(replace(settings, cpu_offload=False)).standing - self.whole
        if settings.checkpointing == "offload":
            kept += kept_by_host(self.config, self.work(settings), self.dtype_under(settings))
        return kept


def in_float32(size: ModelSize) -> ModelSize:
    """The same model with weights of four bytes."""
    if not size.low:
        return size
    return replace(
        size, weights=2 * size.weights, layer=2 * size.layer, outside=2 * size.outside, low=0,
        trained=2 * size.gradients, states={32: 2 * size.states[32], 8: size.states[8]},
    )  # fmt: skip
