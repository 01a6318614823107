"""What phases share that learn from what their policy writes: rollouts, and the minibatches made of them.

A rollout fills the experience buffer with ``minibatches_per_rollout * num_iterations`` minibatches, one
for each optimizer step. When the buffer is empty, the next step begins with a rollout.

With ``overlap_rollouts`` the prompts of the next rollout are then answered and scored in a thread while the
steps of this one run, by an engine with weights of its own. A checkpoint waits for that thread and holds what it
made: made again from saved weights it would cost a model on the disk and the sampling, and an engine in another
program would not make the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from lightning_r1.data.stream import PromptStream
from lightning_r1.experience.batching import MicroBatch, Sequences, micro_batches
from lightning_r1.experience.buffer import ExperienceBuffer
from lightning_r1.experience.collect import Credit, Rollout, collect, prompts_needed
from lightning_r1.experience.draft import Draft, Flight, Landed, make_draft
from lightning_r1.experience.landing import lands, settled
from lightning_r1.experience.metrics import rollout_metrics, staleness_metrics
from lightning_r1.experience.parity import parity_gap
from lightning_r1.experience.queue import GroupQueue
from lightning_r1.experience.redistribute import OwnState, own_state
from lightning_r1.functional import minibatch_denominator
from lightning_r1.functional.reduction import Reduction
from lightning_r1.models.policy import Policy
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.checkpoint_files import RANKS
from lightning_r1.parallel.collectives import all_gather, all_sum, rank, together, world_size
from lightning_r1.parallel.interruption import interruption
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.beside import BesideEngine
from lightning_r1.rollout.engine import RolloutEngine, from_whole_weights, seed_for
from lightning_r1.types import Prompt, Sampling


class RolloutPlan(Protocol):
    """How many prompts make a rollout, how they are answered, and into how many steps it is cut."""

    @property
    def prompts_per_rollout(self) -> int:
        """B, over all ranks."""
        ...

    @property
    def minibatches_per_rollout(self) -> int:
        """Optimizer steps in one pass over a rollout."""
        ...

    @property
    def num_iterations(self) -> int:
        """Passes over a rollout."""
        ...

    @property
    def whole_groups(self) -> bool:
        """Whether the completions of a prompt are in the same minibatch."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn."""
        ...

    @property
    def credit(self) -> Credit:
        """How rewards become advantages."""
        ...

    @property
    def overlap_rollouts(self) -> bool:
        """Whether the next rollout is sampled while this one trains."""
        ...

    @property
    def queue_age(self) -> int:
        """Rollouts that surplus groups may wait; at 0 none does."""
        ...

    @property
    def steps_behind(self) -> int:
        """Optimizer steps by which sampling weights may be behind; 0 where every rollout is of the newest."""
        ...

    @property
    def reduction(self) -> Reduction:
        """From one number a token to the loss."""
        ...


class RolloutPhase(Phase[Policy]):
    """A phase that learns from its policy's completions.

    Args:
        algorithm: the plan of its rollouts, and whatever else the phase lets one choose.
        engine: samples from the policy.
        rewards: score completions.
        stream: gives prompts.
        **phase: what every phase takes, see :class:`.Phase`.

    Raises:
        ValueError: if rollouts are to overlap with the update and the engine cannot do that.
    """

    def __init__(
        self,
        *,
        algorithm: RolloutPlan,
        engine: RolloutEngine,
        rewards: RewardSuite,
        stream: PromptStream,
        **phase: Any,
    ) -> None:
        super().__init__(**phase)
        self.rollout_plan, self.engine, self.rewards, self.stream = algorithm, engine, rewards, stream
        if algorithm.overlap_rollouts and not engine.beside_training:
            raise ValueError(
                f"algo.overlap_rollouts=true: a {type(engine).__name__} cannot sample while the policy trains"
            )
        self.buffer = ExperienceBuffer.empty()
        self.queue = GroupQueue(algorithm.queue_age)
        self.flight: Flight | None = None  # the first draw of the next rollout
        self.drawn = 0  # prompts taken from the stream: its position
        self.rollouts = 0
        self.last_rollout: Rollout | None = None

    def plan(self) -> str:
        """The batch plan in words."""
        plan = self.rollout_plan
        rows = plan.prompts_per_rollout * plan.sampling.group_size
        return (
            f"a rollout is {plan.prompts_per_rollout} prompts x {plan.sampling.group_size} completions = {rows}, "
            f"used for {plan.minibatches_per_rollout * plan.num_iterations} optimizer step(s) "
            f"of {rows // plan.minibatches_per_rollout} completions"
            + (", while the next rollout is sampled" if plan.overlap_rollouts else "")
            + (" from a copy of the weights" if isinstance(self.engine, BesideEngine) else "")
        )

    def training_step(self, tick: int, index: int) -> None:
        """One minibatch, with a rollout before it if the buffer is empty."""
        metrics = self.rollout() if self.buffer.exhausted else {}

        started = time.perf_counter()
        minibatch = self.buffer.next_minibatch()
        denominator = self._denominator(minibatch)
        sums = self.update(
            micro_batches(minibatch, self.micro_batch_tokens, self.codec.pad_id, self.layouts),
            lambda batch: self.loss(batch, denominator),
        )
        metrics |= self.update_metrics(sums) | {"time/update_s": time.perf_counter() - started}
        self.log_step(metrics, tokens=all_sum(sum(minibatch.lengths())))

    def rollout(self) -> dict[str, float]:
        """Sample, score, give credit, and fill the buffer; returns what there is to log."""
        plan = self.rollout_plan
        self.settle()
        self.engine.wake()
        self.engine.sync_weights(self.global_step)
        parity = self._parity()
        self.rewards.to(self.device)
        with from_whole_weights(self.engine, self.policy):
            rollout = collect(
                self._draw,
                self.engine,
                self.rewards,
                sampling=plan.sampling,
                credit=plan.credit,
                groups=self._groups,
                number=self.rollouts + 1,
                queue=self.queue,
                flight=self.flight,
                progress=lambda done, total: self.report("rollout", done, total),
                still_wanted=interruption.look,
            )
        self.flight = None
        # what it raises on rank 0, all raise
        watched = together(lambda: self.rewards.watch(self.global_step) if rank() == 0 else {}, RewardError)
        self.drawn += rollout.prompts * world_size()
        self.rollouts += 1
        self._begin_the_next()
        self.last_rollout = rollout
        self.buffer = ExperienceBuffer(
            self.completed(rollout.sequences),
            minibatches=plan.minibatches_per_rollout,
            iterations=plan.num_iterations,
            seed=seed_for(self.seed, "minibatches", self.rollouts, rank()),
            whole_groups=plan.whole_groups,
        )
        return (
            rollout_metrics(rollout, self.codec)
            | watched
            | parity
            | (staleness_metrics(rollout, self.queue, step=self.global_step) if plan.steps_behind else {})
            | {
                "progress/rollouts": float(self.rollouts),
                "progress/epoch": self.stream.epoch(self.drawn),
            }
        )

    def _parity(self) -> dict[str, float]:
        """Whether an engine that is another program has the policy's weights; raises if it has not."""
        tolerance = None if self.engine.exact else getattr(self.engine, "parity_tolerance", None)
        if tolerance is None:
            return {}
        prompts, seeds = self._draw(0, self._groups)
        temperature = self.rollout_plan.sampling.temperature
        gap = parity_gap(
            self.engine, self.policy, self.codec, prompts, seeds=seeds, temperature=temperature, tolerance=tolerance
        )
        return {"rollout/parity_gap": gap}

    def _begin_the_next(self) -> None:
        """Let the next rollout be sampled beside this one's steps; if it is not to be, the engine sleeps."""
        plan = self.rollout_plan
        steps = plan.minibatches_per_rollout * plan.num_iterations
        last = 0 <= int(self.trainer.max_steps) <= self.global_step + steps
        if last or not plan.overlap_rollouts:
            self.engine.sleep()
            return
        prompts, seeds = self._draw(0, prompts_needed(self.queue, self._groups, self.rollouts + 1))

        def make(still_wanted: Callable[[], None]) -> Draft:
            return make_draft(
                prompts,
                seeds,
                self.engine,
                self.rewards,
                plan.sampling,
                progress=lambda done, total: self.report("rollout", done, total),
                still_wanted=still_wanted,
            )

        self.flight = Flight(make, self.device)

    def settle(self) -> None:
        """Wait for the rollout in flight; how it ended is told where it is used.

        Raises:
            Interrupted: on every rank, if one is to leave.
        """
        if self.flight:
            settled(self.flight)

    def close(self) -> None:
        """Nobody waits for the rollout in flight any more."""
        if self.flight:
            self.flight.abandon()

    def completed(self, sequences: Sequences) -> Sequences:
        """A rollout's rows with whatever else their loss needs; here, as they are."""
        return sequences

    def loss(self, batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share of the loss, and its sums."""
        raise NotImplementedError

    def update_metrics(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """What there is to log of an update, from the sums over micro-batches and ranks."""
        raise NotImplementedError

    @property
    def _groups(self) -> int:
        """Of a rollout, on this rank."""
        return self.rollout_plan.prompts_per_rollout // world_size()

    def _draw(self, taken: int, count: int) -> tuple[list[Prompt], list[int]]:
        """The next prompts of this rank with their seeds, behind those that it has had for this rollout."""
        first = self.drawn + taken * world_size()
        positions = range(first + rank(), first + count * world_size(), world_size())
        seeds = [seed_for(self.seed, "rollout", position) for position in positions]
        return [self.stream.at(position, step=self.global_step) for position in positions], seeds

    def _denominator(self, minibatch: Sequences) -> float:
        """Of the whole minibatch, over all ranks: known before the first forward."""
        return minibatch_denominator(
            sequences=all_sum(len(minibatch)),
            tokens=all_sum(minibatch.counted()),
            reduction=self.rollout_plan.reduction,
            token_budget=self.rollout_plan.sampling.max_new_tokens,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the loop needs to go on: what this rank has sampled and not used yet, and the counters."""
        super().on_save_checkpoint(checkpoint)
        if self.flight and not lands(self.flight):
            self.flight = None
            self.print("the rollout in flight would land too late to be saved: it is sampled again later")
        flight = self.flight.state_dict() if self.flight else None
        # where one has failed, none is kept: the run will end, and a resumed one makes all of it again
        kept = flight if all(all_gather(flight is not None)) else None
        own = OwnState(self.buffer.state_dict(), self.queue.state_dict(), kept)
        checkpoint[RANKS] = {rank(): own.plain()}
        checkpoint["lightning_r1"] |= {"drawn": self.drawn, "rollouts": self.rollouts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was written, in the middle of a rollout's minibatches too.

        On another number of ranks, what is left is dealt to them by the rule of :mod:`.redistribute`.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["lightning_r1"]
        own = own_state(checkpoint, rank(), world_size(), tell=self.print)
        self.buffer = ExperienceBuffer.from_state_dict(own.buffer)
        self.queue.load_state_dict(own.queue)
        self.flight = Landed.from_state_dict(own.flight) if own.flight else None
        self.drawn, self.rollouts = state["drawn"], state["rollouts"]
