"""What every phase of training shares: an exact optimizer step over micro-batches.

Lightning sees one minibatch = one optimizer step = one ``training_step`` = one unit of
``global_step``, in manual optimization: gradients are accumulated over micro-batches here, clipped
here, and a step that is not finite is skipped here, by name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_r1.experience.batching import Choice
from lightning_r1.functional.diagnostics import combine
from lightning_r1.models.adapter import training_operations
from lightning_r1.models.adapter_state import adapter_weights, check_base
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import export_adapter, export_model
from lightning_r1.models.identity import Base
from lightning_r1.models.live_weights import as_whole, whole_weights
from lightning_r1.models.policy import Policy
from lightning_r1.modules.layouts import layouts_of
from lightning_r1.modules.shards import shard_models
from lightning_r1.optim.master import collect_gradients, has_masters, stepped_on
from lightning_r1.parallel.collectives import all_max, combine_over_ranks, rank, world_size
from lightning_r1.parallel.memory import peak_gib
from lightning_r1.parallel.speed import peak_flops
from lightning_r1.parallel.strategy import ShardedStrategy
from lightning_r1.rollout.engine import seed_for

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]
ScheduleFactory = Callable[..., LRScheduler]
Report = Callable[[str, int, int], None]
"""Called with (what, done, total) while something long goes on."""

Model = TypeVar("Model", bound=nn.Module)
"""What a phase trains: a :class:`.Policy`, or a reward model in its place."""


class Micro(Protocol):
    """Rows of one forward and backward."""

    def to(self, device: torch.device) -> Any:
        """The same on another device."""
        ...

    def nothing(self) -> Any:
        """The same rows, of which none counts: a forward that only keeps ranks in step."""
        ...


Batch = TypeVar("Batch", bound=Micro)


class Phase(L.LightningModule, Generic[Model]):
    """Base of all phases.

    Args:
        policy: the model that is trained.
        codec: its template and tokenizer.
        optimizer: makes the optimizer from the policy's named parameters.
        schedule: makes the schedule from the optimizer and ``total_steps``.
        seed: of everything random.
        micro_batch_tokens: tokens of one forward, padding included.
        packing: whether the rows of a forward stand one behind the other, without padding; auto: with flash attention.
        shared_prefix: whether rows with equal prompts compute it once in each forward; auto: where it pays.
        max_grad_norm: gradients are scaled down to this norm.
        max_skipped_steps: consecutive steps that may be skipped before the run is ended.
    """

    def __init__(
        self,
        *,
        policy: Model,
        codec: Codec,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        seed: int = 0,
        micro_batch_tokens: int = 16384,
        packing: Choice = "auto",
        shared_prefix: Choice = "auto",
        max_grad_norm: float = 1.0,
        max_skipped_steps: int = 10,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy: Model = policy.train()  # a loaded model is in evaluation mode
        self.codec = codec
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.seed, self.micro_batch_tokens = seed, micro_batch_tokens
        self.layouts = layouts_of(policy, packing, shared_prefix)
        self.max_grad_norm, self.max_skipped_steps = max_grad_norm, max_skipped_steps
        self.skipped_in_a_row = 0
        self.lr = 0.0  # that the latest step used
        self.latest: dict[str, float] = {}  # the latest step's numbers
        self.tokens = self.seconds = 0.0  # of the whole run, interruptions included
        self.report: Report = lambda what, done, total: None

    def plan(self) -> str:
        """The batch plan in words, for people."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until nothing goes on in the background: the engine and the rewards are free for others."""

    def close(self) -> None:
        """Let go of what goes on in the background."""

    def export(self, folder: Path, *, card: Mapping[str, Any]) -> None:
        """Write the trained model as a plain transformers folder, with facts beside it; where an adapter was trained,
        a folder ``adapter`` beside it holds that alone.

        All ranks call it, for a sharded model is gathered tensor by tensor; rank 0 writes.
        """
        policy = cast(Policy, self.policy)
        weights = whole_weights(policy.model, keep=rank() == 0)
        adapter = adapter_weights(policy.model)
        if rank() == 0:
            self.write(folder, card, weights)
            if adapter:
                export_adapter(policy, folder.with_name("adapter"), adapter)

    def write(self, folder: Path, card: Mapping[str, Any], weights: dict[str, Tensor] | None) -> None:
        """As :meth:`export`, on one rank."""
        assert isinstance(self.policy, Policy)
        export_model(self.policy, self.codec, folder, card=card, weights=weights)

    def models(self) -> list[nn.Module]:
        """Policies and reward models that are run in the update."""
        return [self.policy]

    def configure_model(self) -> None:
        """Shard the models and give them their weights, under a strategy that does."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            shard_models(strategy, self.models())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer and schedule; the schedule is stepped with the optimizer."""
        optimizer = self.make_optimizer(self.policy.named_parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": self.make_schedule(optimizer, total_steps=self.trainer.max_steps),
        }

    def update(
        self, micro_batches: Sequence[Batch], loss_of: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
    ) -> dict[str, Tensor]:
        """One optimizer step.

        Args:
            micro_batches: of this rank; at least one, made with :meth:`Micro.nothing` if it
                has nothing to do.
            loss_of: gives a micro-batch's share of the loss and its sums; the shares of all
                micro-batches and ranks add up to the loss.

        Returns:
            The sums, combined over micro-batches and ranks.

        Raises:
            RuntimeError: after too many steps in a row that were not finite.
        """
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        self.lr = float(self._schedule.get_last_lr()[0])  # of this step: the schedule moves on with the optimizer
        self._seed_step()
        # every rank runs as many micro-batches as the one that has most: sharded and reduced
        # gradients are collective, and a rank that stops early would leave the others waiting
        count = int(all_max(len(micro_batches)))
        parts = []
        for index in range(count):
            batch = micro_batches[index] if index < len(micro_batches) else micro_batches[-1].nothing()
            # where gradients are added up in float32, each micro-batch's has to be whole
            with self._gradient_sync(last=index == count - 1 or has_masters(optimizer.optimizer)):
                loss, sums = loss_of(batch.to(self.device))
                # DDP averages gradients over ranks. The loss's denominator is global already, so
                # that a sum is wanted: the average is undone by this factor.
                self.manual_backward(loss * world_size())
            collect_gradients(optimizer.optimizer)
            parts.append({**sums, "loss": loss.detach()})
            self.report("update", index + 1, count)
        combined = combine_over_ranks(combine(parts))
        self._step(optimizer, combined)
        return combined

    def _step(self, optimizer: LightningOptimizer, sums: dict[str, Tensor]) -> None:
        stepped = [stepped_on(optimizer.optimizer, parameter) for parameter in self.policy.parameters()]
        gradients = [parameter.grad for parameter in stepped if parameter.grad is not None]
        norm = as_whole(nn.utils.get_total_norm(gradients))  # over the slices of all ranks
        sums["grad_norm_max"] = norm.detach()
        sums["skipped_max"] = torch.zeros_like(norm)
        if torch.isfinite(norm) and torch.isfinite(sums["loss"]):
            # not before: a norm that is NaN would make every gradient NaN, and the culprit could not be named
            nn.utils.clip_grads_with_norm_(stepped, self.max_grad_norm, norm)
            optimizer.step()
            self._schedule.step()
            self.skipped_in_a_row = 0
            return
        # the norm is over all ranks' gradients, so that all ranks skip together
        self.skipped_in_a_row += 1
        sums["skipped_max"] += 1
        culprit = self._not_finite(sums["loss"], optimizer.optimizer)
        optimizer.zero_grad()
        message = f"step {self.global_step}: {culprit} is not finite"
        if self.skipped_in_a_row >= self.max_skipped_steps:
            raise RuntimeError(
                f"{message} ({self.skipped_in_a_row} in a row). Lower optim.lr, set "
                "algo.dual_clip, or look at the rollouts of the last steps; the last checkpoint is intact."
            )
        self.print(f"{message}; the step is skipped")

    def _not_finite(self, loss: Tensor, optimizer: Optimizer) -> str:
        if not torch.isfinite(loss):
            return f"the loss ({loss.item()})"
        for name, parameter in self.policy.named_parameters():
            gradient = stepped_on(optimizer, parameter).grad
            # of all slices: another rank's may hold the culprit
            if gradient is not None and not as_whole(torch.isfinite(gradient).all()):
                return f"the gradient of {name}"
        return "the gradient norm"

    def _seed_step(self) -> None:
        """Dropout is a function of seed, step and rank: no generator's state has to be saved."""
        seed = seed_for(self.seed, "update", self.global_step, rank())
        torch.manual_seed(seed)
        random.seed(seed)

    @contextmanager
    def _gradient_sync(self, *, last: bool) -> Iterator[None]:
        """Ranks exchange gradients once, in the last micro-batch's backward."""
        strategy = self.trainer.strategy
        block = getattr(strategy, "block_backward_sync", None)
        with nullcontext() if last or block is None or world_size() == 1 else block():
            yield

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Start the step's clock."""
        self._started = time.perf_counter()

    def log_step(self, metrics: dict[str, float], *, tokens: float) -> None:
        """Hand a step's numbers to the loggers, under the step they lead to.

        Not by ``self.log``, which repeats what an earlier step logged in every later one.

        Args:
            metrics: by their fixed names.
            tokens: prompt and completion tokens that the step trained on, over all ranks.
        """
        seconds = time.perf_counter() - self._started
        self.tokens += tokens
        self.seconds += seconds
        self.latest = metrics | {
            "optim/lr": self.lr,
            "perf/tokens_per_s": tokens / seconds,
            "memory/peak_gib": peak_gib(),
        }
        if peak := peak_flops(self.device):
            # forward and backward of what the step trained on, however laid out
            trained = training_operations(self.policy) * tokens
            update = metrics.get("time/update_s", seconds)
            self.latest["perf/mfu"] = trained / (update * peak * world_size())
        for logger in self.loggers:
            logger.log_metrics(self.latest, step=self.global_step)

    @property
    def _base(self) -> dict[str, str] | None:
        """What an adapter stands on; None where the whole model trains."""
        base: Base | None = getattr(self.policy, "base", None)
        return None if base is None else base.told()

    @property
    def _schedule(self) -> LRScheduler:
        return cast(LRScheduler, self.lr_schedulers())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the template contract, the run's totals, and what an adapter stands on."""
        checkpoint["lightning_r1"] = {
            "template_fingerprint": self.codec.fingerprint(),
            "world_size": world_size(),
            "tokens": self.tokens,
            "seconds": self.seconds,
            "base": self._base,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint made under another template, or on another base.

        Raises:
            ValueError: names both and what to do.
        """
        made = checkpoint["lightning_r1"]
        if made["template_fingerprint"] != self.codec.fingerprint():
            raise ValueError(
                f"template: the checkpoint was made under {made['template_fingerprint']}, this run has "
                f"{self.codec.fingerprint()}. Take the template and tokenizer it was made with, or another name=."
            )
        check_base(made.get("base"), self._base)
        self.tokens, self.seconds = made["tokens"], made["seconds"]
        # Lightning loads the weights first and converts them to trainer.precision later: they would be rounded between
        self.trainer.strategy.precision_plugin.convert_module(self)
