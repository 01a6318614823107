"""The watchdog: says by name when a run is dead or sick, and ends it where it can never heal by itself.

A run whose completions are all cut off, or whose reward is the same everywhere, goes on for days and looks like one
that learns slowly. Every step is looked at for each cause (:mod:`.causes`, :mod:`.rollout_causes`); what is seen long
enough is told once, until it has cleared: on the console, as ``watchdog/<cause>`` in the logs (0 or 1 of every cause,
whenever one of them changes), and as an alert where the logger has alerts. The memory of it is in the checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import lightning as L
from rich.text import Text

from lightning_r1.callbacks.causes import Cause, RolloutFacts, Sight
from lightning_r1.callbacks.checkpoint import StepCheckpoints
from lightning_r1.callbacks.console import console
from lightning_r1.experience.collect import Rollout
from lightning_r1.modules.grpo import GRPO
from lightning_r1.modules.phase import Phase
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.collectives import all_gather, all_max
from lightning_r1.rewards.base import BatchReward
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.text.filters import repetition
from lightning_r1.types import Outcome

# of each rank: counting n-grams in all completions of a large rollout would take minutes
_COMPLETIONS_READ, _CHARACTERS_READ, _NGRAM = 16, 100_000, 16


class SickRun(ValueError):
    """A run that was ended because it could not heal; the message names the cause, in one line."""


class Watchdog(L.Callback):
    """Looks for causes at every step.

    Args:
        causes: by the name under which they are told and logged; null switches one off.
    """

    def __init__(self, causes: Mapping[str, Cause | None]) -> None:
        self.causes = {name: cause for name, cause in causes.items() if cause is not None}
        self.rollouts = 0  # the last one that was looked at
        self.teaches = True  # whether it has an advantage

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, tell, and end the run if it has to be.

        Raises:
            SickRun: names the cause; a checkpoint of this step has been written.
        """
        assert isinstance(pl_module, Phase)
        sight, possible = self._sight(trainer, pl_module), self._possible(pl_module)
        told = {name: self.causes[name].told for name in possible}
        ends = [name for name in possible if self._look(trainer, name, sight)]
        now = {name: self.causes[name].told for name in possible}
        if now != told and trainer.is_global_zero:
            for logger in trainer.loggers:
                numbers = {f"watchdog/{name}": float(is_sick) for name, is_sick in now.items()}
                logger.log_metrics(numbers, step=trainer.global_step)
        # all ranks see the same numbers; if they ever do not, they still end together
        if sight.steps_left and all_max(bool(ends)):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, StepCheckpoints):
                    callback.save_now(trainer)
            said = "; ".join(f"{name}: {self._sentence(name, sight)}" for name in ends) or "another rank has ended it"
            raise SickRun(f"watchdog: the run was ended at step {trainer.global_step} by {said}")

    def _possible(self, module: L.LightningModule) -> list[str]:
        """Names of the causes that the phase can have."""
        rolls_out = isinstance(module, RolloutPhase)
        return [name for name, cause in self.causes.items() if rolls_out or not cause.of_rollouts]

    def _look(self, trainer: L.Trainer, name: str, sight: Sight) -> bool:
        """Count what a cause sees and tell what is new; whether it has to end the run."""
        cause = self.causes[name]
        seen = cause.look(sight)
        if seen is None:
            return False
        self.seen[name] = seen
        cause.count = cause.count + 1 if seen else 0
        if cause.told and not seen:
            cause.told = False
            self._tell(trainer, name, "has cleared", "green")
        elif not cause.told and cause.count >= cause.warn_after:
            cause.told = True
            self._tell(trainer, name, self._sentence(name, sight), "yellow")
            self._alert(trainer, name, self._sentence(name, sight))
        return cause.stop_after is not None and cause.count >= cause.stop_after

    def _sentence(self, name: str, sight: Sight) -> str:
        cause = self.causes[name]
        return f"{self.seen[name]}, for {cause.count} {cause.unit}{'s' * (cause.count > 1)} now; {cause.hint}"

    def _tell(self, trainer: L.Trainer, name: str, words: str, style: str) -> None:
        line = Text.assemble((f"watchdog at step {trainer.global_step}: {name} ", f"bold {style}"), words)
        console.print(line, soft_wrap=True)

    def _alert(self, trainer: L.Trainer, name: str, words: str) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if alert := getattr(logger, "alert", None):
                    alert(f"watchdog: {name}", f"step {trainer.global_step}: {words}")

    def _sight(self, trainer: L.Trainer, module: Phase) -> Sight:
        self.seen: dict[str, str] = {}
        left = int(trainer.max_steps) - trainer.global_step
        if not isinstance(module, RolloutPhase):
            return Sight(module.latest, steps_left=left)
        facts = None
        if module.last_rollout is not None and module.rollouts != self.rollouts:
            self.rollouts = module.rollouts
            # the step that began with this rollout has been counted by now
            oldest = trainer.global_step - 1 - module.rollout_plan.steps_behind
            facts = rollout_facts(module.last_rollout, module, sampled_at=oldest)
            advantages = module.last_rollout.advantages
            self.teaches = not isinstance(module, GRPO) or bool(all_max(bool((advantages != 0).any())))
        return Sight(
            module.latest,
            steps_left=left,
            rollout=facts,
            teaches=self.teaches,
            by_reward=isinstance(module, GRPO),
            exact=module.engine.exact and not module.rollout_plan.steps_behind,
            foreign_end=_foreign_end(module),
        )

    def state_dict(self) -> dict[str, Any]:
        """What every cause remembers."""
        causes = {name: cause.state() for name, cause in self.causes.items()}
        return {"rollouts": self.rollouts, "teaches": self.teaches, "causes": causes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`; a cause that is new begins anew."""
        self.rollouts, self.teaches = state_dict["rollouts"], state_dict["teaches"]
        for name, cause in self.causes.items():
            cause.restore(state_dict["causes"].get(name, {}))


def rollout_facts(rollout: Rollout, module: RolloutPhase, *, sampled_at: int) -> RolloutFacts:
    """What a rollout was like, over all ranks.

    Args:
        rollout: this rank's part.
        module: whose rollout it is.
        sampled_at: the oldest step whose weights may have sampled it.
    """
    completions = [completion for scored in rollout.scored for completion in scored.group.completions]
    rewards = [reward for scored in rollout.scored for reward in scored.rewards if not math.isnan(reward)]
    scores, found_nothing = Counter[str](), Counter[str]()
    for scored in rollout.scored:
        for name, column in scored.breakdown.items():
            scores[name] += len(column)
            found_nothing[name] += sum(score.outcome is Outcome.WRONG_FORMAT for score in column)
    sampling = module.rollout_plan.sampling
    cut = sum(
        one.finish_reason == "length" and len(one.token_ids) < sampling.budget(scored.group.prompt)
        for scored in rollout.scored
        for one in scored.group.completions
        if one.sampled is None  # an episode may also end at its last turn
    )
    oldest = min((completion.policy_version for completion in completions), default=sampled_at)
    read = [scored.group.completions[0].text[:_CHARACTERS_READ] for scored in rollout.scored[:_COMPLETIONS_READ]]
    repeated = sum(repetition(text, _NGRAM)[0] for text in read)
    everybody = all_gather((rewards and (min(rewards), max(rewards)), scores, found_nothing, cut, len(completions),
                            oldest, repeated, len(read)))  # fmt: skip
    ranges, scores_of, nothing_of, cuts, counts, versions, repetitions, reads = zip(*everybody, strict=True)
    ranges = tuple(bounds for bounds in ranges if bounds)
    everything, nothing = sum(scores_of, Counter[str]()), sum(nothing_of, Counter[str]())
    preference, rules = _kinds(module.rewards)
    return RolloutFacts(
        lowest=min((low for low, _ in ranges), default=math.nan),
        highest=max((high for _, high in ranges), default=math.nan),
        wrong_format={name: nothing[name] / count for name, count in everything.items()},
        unstopped=sum(cuts) / max(sum(counts), 1),
        age=max(0, sampled_at - min(versions)),
        repetition=sum(repetitions) / max(sum(reads), 1),
        preference=_mean_reward(module, preference),
        rules=_mean_reward(module, rules),
    )


def _kinds(rewards: RewardSuite) -> tuple[list[str], list[str]]:
    """Names of the rewards that tell a preference, and of those that are rules for reasoning."""
    preference = [
        name
        for name, reward in rewards.rewards.items()
        if isinstance(reward, BatchReward) or "reasoning" not in rewards.routes[name]
    ]
    return preference, [name for name in rewards.rewards if name not in preference]


def _mean_reward(module: Phase, names: list[str]) -> float:
    """Mean of those rewards' means in the step's metrics, NaN where one is not there."""
    means = [module.latest.get(f"rollout/reward/{name}", math.nan) for name in names]
    return sum(means) / len(means) if means else math.nan


def _foreign_end(module: RolloutPhase) -> tuple[int, ...]:
    """The model's own end tokens, if none of them is one at which completions stop."""
    model = module.policy.model
    for config in (getattr(model, "generation_config", None), model.config.get_text_config(decoder=True)):
        end = getattr(config, "eos_token_id", None)
        if end is not None:
            ends = tuple(end) if isinstance(end, list | tuple) else (end,)
            return () if set(ends) & set(module.codec.stop_ids) else ends
    return ()
