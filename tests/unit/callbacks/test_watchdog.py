"""The watchdog over real rollouts and steps: what it sees, whom it tells, what it leaves when it ends a run."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.console import said
from helpers.engine import ScriptedEngine
from helpers.logs import Memory
from helpers.phases import SCRIPT, fit, long_is_good, scripted_grpo
from helpers.ranks import on_ranks
from helpers.rewards import always
from lightning_r1.callbacks import watchdog
from lightning_r1.callbacks.causes import Cause, RolloutFacts, Sight, ZeroGradient, ZeroLearningRate
from lightning_r1.callbacks.checkpoint import StepCheckpoints, newest_checkpoint
from lightning_r1.callbacks.rollout_causes import ConstantReward, NoStopToken, UnsyncedWeights
from lightning_r1.callbacks.watchdog import SickRun, Watchdog, rollout_facts
from lightning_r1.models.codec import Codec
from lightning_r1.modules.grpo import GRPO
from lightning_r1.modules.supervised import SFT
from lightning_r1.optim.schedule import warmup_then
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import Item
from lightning_r1.rewards.format import Format
from lightning_r1.types import Completion, Prompt, Sampling

ENDING = {question: [text.removesuffix("<eos>") + "<eos>" for text in texts] for question, texts in SCRIPT.items()}
"""As :data:`SCRIPT`, and nothing is cut off."""


def constant(stop_after: int | None = None) -> Watchdog:
    return Watchdog({"constant_reward": ConstantReward(warn_after=2, stop_after=stop_after)})


class Alerts(Memory):
    """A logger that has alerts."""

    def __init__(self) -> None:
        super().__init__()
        self.alerts: list[tuple[str, str]] = []

    def alert(self, title: str, text: str) -> None:
        self.alerts.append((title, text))


class Liked:
    """A model's reward."""

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        return self.score_batch([(prompt, completion)])[0]

    def score_batch(self, items: list[Item]) -> list[float]:
        return [3.0] * len(items)


def unscorable(prompt: Prompt, completion: Completion) -> float | None:
    return None


def facts_of(module: GRPO) -> RolloutFacts:
    assert module.last_rollout is not None
    return rollout_facts(module.last_rollout, module, sampled_at=0)


def test_facts_of_a_rollout(codec: Codec, tmp_path: Path) -> None:
    tags = codec.template.tags
    module = scripted_grpo(codec, rewards={"accuracy": Accuracy(tags), "format": Format(tags), "liked": Liked()})
    fit(module, steps=1, folder=tmp_path)
    facts = facts_of(module)
    # right: 1 + 1 + 3; an empty thinking has no format; the one that is cut off has no answer
    assert (facts.lowest, facts.highest) == (3.0, 5.0)
    assert facts.wrong_format == {"accuracy": 1 / 6, "format": 3 / 6, "liked": 0}
    assert facts.unstopped == 1 / 6  # two tokens of sixteen, and no stop token
    short = [replace(one, group=replace(one.group, prompt=replace(one.group.prompt, token_budget=2)))
             for one in module.last_rollout.scored]  # fmt: skip
    module.last_rollout = replace(module.last_rollout, scored=short)
    assert facts_of(module).unstopped == 0  # its own budget is used up
    assert (facts.age, facts.repetition) == (0, 0)
    assert facts.preference == 3
    assert facts.rules == pytest.approx((3 / 6 + 3 / 6) / 2)


def test_facts_of_a_rollout_that_could_not_be_scored(codec: Codec, tmp_path: Path) -> None:
    module = scripted_grpo(codec, rewards={"broken": unscorable})
    fit(module, steps=1, folder=tmp_path)
    facts = facts_of(module)
    assert math.isnan(facts.lowest)
    assert math.isnan(facts.highest)
    assert math.isnan(facts.preference)


def test_loops_are_seen_in_the_texts(codec: Codec, tmp_path: Path) -> None:
    texts = {"1": ["1;2*3;" * 40, "</think><answer>1</answer><eos>", ";;"]}
    module = scripted_grpo(codec, texts, sampling=Sampling(group_size=3, max_new_tokens=300))
    fit(module, steps=1, folder=tmp_path)
    assert facts_of(module).repetition > 0.9


class Stale(ScriptedEngine):
    """Takes the first weights and no others."""

    def sync_weights(self, version: int) -> None:
        """Nothing is taken."""


def test_weights_that_are_never_synced(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = scripted_grpo(codec, ENDING)
    module.engine = Stale(codec, ENDING)
    dog = Watchdog({"unsynced_weights": UnsyncedWeights(warn_after=1, stop_after=3, age=0)})
    with pytest.raises(SickRun, match=r"ended at step 4 by unsynced_weights: completions are of weights 3 steps ago"):
        fit(module, steps=10, folder=tmp_path, callbacks=[dog])
    assert "watchdog at step 2: unsynced_weights completions are of weights 1 steps ago, for 1 rollout" in said(capsys)


def test_synced_weights_are_of_the_rollouts_step(codec: Codec, tmp_path: Path) -> None:
    """In the middle of a rollout the policy moves on; that is no fault of the engine."""
    dog = Watchdog({"unsynced_weights": UnsyncedWeights(warn_after=1, stop_after=1, age=0)})
    fit(
        scripted_grpo(codec, ENDING, minibatches_per_rollout=2, num_iterations=2),
        steps=9,
        folder=tmp_path,
        callbacks=[dog],
    )
    assert dog.rollouts == 3


def test_told_once_logged_and_alerted_until_it_clears(
    codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 0

    def lies_at_first(prompt: Prompt, completion: Completion) -> float:
        nonlocal calls
        calls += 1
        return 0.25 if calls <= 4 * 6 else long_is_good(prompt, completion)

    logger, plain = Alerts(), Memory()
    module = scripted_grpo(codec, rewards={"lies": lies_at_first})
    dog = Watchdog(
        {"constant_reward": ConstantReward(warn_after=2), "unstopped": NoStopToken(warn_after=3), "off": None}
    )
    fit(module, steps=8, folder=tmp_path, callbacks=[dog], loggers=[logger, plain])
    heard = said(capsys)
    words = "every reward is 0.25, for 2 rollouts now; look at rollouts/ and the reward function"
    assert heard.count(f"watchdog at step 2: constant_reward {words}") == 1
    assert heard.count("watchdog at step 5: constant_reward has cleared") == 1
    assert heard.count("constant_reward") == 2
    for memory in (logger, plain):
        rows = [(step, row) for step, row in memory.rows if any(name.startswith("watchdog/") for name in row)]
        assert rows == [
            (2, {"watchdog/constant_reward": 1.0, "watchdog/unstopped": 0.0}),
            (3, {"watchdog/constant_reward": 1.0, "watchdog/unstopped": 1.0}),
            (5, {"watchdog/constant_reward": 0.0, "watchdog/unstopped": 1.0}),
        ]
    (title, text), (other, _) = logger.alerts
    assert (title, other) == ("watchdog: constant_reward", "watchdog: unstopped")
    assert text.startswith(f"step 2: {words}")


def test_brackets_in_a_sentence_are_words(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(Cause):
        def look(self, sight: Sight) -> str:
            return "[red]is[/] no colour"

    fit(scripted_grpo(codec), steps=1, folder=tmp_path, callbacks=[Watchdog({"odd": Odd(warn_after=1)})])
    assert "odd [red]is[/] no colour, for 1 rollout now" in said(capsys)


def test_minibatches_of_one_rollout_are_one_sight(codec: Codec, tmp_path: Path) -> None:
    dog = constant()
    module = scripted_grpo(codec, rewards={"lies": always}, minibatches_per_rollout=3, num_iterations=2)
    fit(module, steps=12, folder=tmp_path, callbacks=[dog])
    assert dog.causes["constant_reward"].count == 2


def test_the_end_leaves_a_whole_checkpoint_from_which_a_mended_run_goes_on(codec: Codec, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"

    def run(reward: Any, steps: int, resume: Path | None = None) -> tuple[GRPO, Watchdog]:
        module, dog = scripted_grpo(codec, rewards={"reward": reward}), constant(stop_after=3)
        checkpoints = StepCheckpoints(folder, every_n_steps=50, keep=2)
        fit(module, steps=steps, folder=tmp_path, callbacks=[dog, checkpoints], resume=resume)
        return module, dog

    with pytest.raises(SickRun, match=r"step 3 by constant_reward: every reward is 0.5, for 3 rollouts now; look at"):
        run(always, 9)
    saved = newest_checkpoint(folder, tell=pytest.fail)
    assert saved is not None
    assert saved.step == 3
    state = torch.load(saved.path, weights_only=True)
    assert state["lightning_r1"]["rollouts"] == 3
    assert state["callbacks"]["Watchdog"]["causes"]["constant_reward"]["count"] == 3
    # not mended, it ends with its next rollout; mended, it goes on, and its count begins anew
    with pytest.raises(SickRun, match=r"step 4 by constant_reward: every reward is 0.5, for 4 rollouts now"):
        run(always, 9, saved.path)
    module, dog = run(long_is_good, 9, saved.path)
    assert (module.global_step, dog.causes["constant_reward"].count) == (9, 0)


def test_the_end_does_not_save_twice(codec: Codec, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = StepCheckpoints(folder, every_n_steps=1, keep=5)
    with pytest.raises(SickRun):
        fit(
            scripted_grpo(codec, rewards={"lies": always}), steps=9, folder=tmp_path,
            callbacks=[constant(stop_after=3), checkpoints],
        )  # fmt: skip
    assert sorted(file.name for file in folder.glob("*.ckpt")) == [f"step-000000{step}.ckpt" for step in (1, 2, 3)]


def test_a_resumed_run_tells_nothing_again(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = StepCheckpoints(tmp_path / "checkpoints", every_n_steps=3, keep=2)
    module = scripted_grpo(codec, rewards={"lies": always})
    fit(module, steps=3, folder=tmp_path, callbacks=[constant(), checkpoints])
    assert "watchdog at step 2: constant_reward" in said(capsys)
    again, dog = scripted_grpo(codec, rewards={"lies": always}), constant()
    saved = newest_checkpoint(tmp_path / "checkpoints", tell=pytest.fail)
    assert saved is not None
    fit(again, steps=6, folder=tmp_path, callbacks=[dog], resume=saved.path)
    assert "watchdog" not in said(capsys)
    assert dog.causes["constant_reward"].count == 6


def test_a_checkpoint_without_the_cause_begins_anew(codec: Codec) -> None:
    dog = constant()
    dog.load_state_dict({"rollouts": 3, "teaches": False, "causes": {"gone": {"count": 3}}})
    assert dog.causes["constant_reward"].count == 0
    dog.load_state_dict({"rollouts": 3, "teaches": True, "causes": {"constant_reward": {"count": 2, "once": 1}}})
    assert dog.causes["constant_reward"].count == 2
    assert not hasattr(dog.causes["constant_reward"], "once")


def test_dead_gradients_and_rates_of_zero(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = scripted_grpo(codec)
    frozen.make_optimizer = partial(torch_sgd, lr=0.0)
    frozen.make_schedule = partial(warmup_then)
    causes = {"zero_learning_rate": ZeroLearningRate(warn_after=2, stop_after=4)}
    with pytest.raises(SickRun, match=r"step 4 by zero_learning_rate: the learning rate is 0 and 6 steps remain"):
        fit(frozen, steps=10, folder=tmp_path, callbacks=[Watchdog(causes)])
    assert "the learning rate is 0 and 8 steps remain, for 2 steps now" in said(capsys)

    masked = scripted_grpo(codec, {"1": [";;", "1;", "2;2"]}, mask_truncated=True)
    with pytest.raises(SickRun, match=r"step 5 by zero_gradient: the gradient is 0, for 5 steps"):
        fit(
            masked,
            steps=10,
            folder=tmp_path,
            callbacks=[Watchdog({"zero_gradient": ZeroGradient(warn_after=2, stop_after=5)})],
        )


def torch_sgd(named: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for _, parameter in named], lr=lr)


def test_without_advantages_no_gradient_is_missed(codec: Codec, tmp_path: Path) -> None:
    dog = Watchdog({"zero_gradient": ZeroGradient(warn_after=1, stop_after=1)})
    fit(scripted_grpo(codec, rewards={"lies": always}), steps=4, folder=tmp_path, callbacks=[dog])
    assert not dog.teaches


def test_an_end_that_nothing_stops_at(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ends, words in (
        (codec.stop_ids[0], ""),
        ([5, codec.stop_ids[0]], ""),
        (5, "the model ends with token 5, at which nothing stops"),
        ([5, 6], "the model ends with token 5 or 6, at which nothing stops"),
    ):
        module = scripted_grpo(codec, ENDING)
        module.policy.model.config.eos_token_id = ends
        if generation := getattr(module.policy.model, "generation_config", None):
            generation.eos_token_id = None
        dog = Watchdog({"no_stop_token": NoStopToken(warn_after=1)})
        fit(module, steps=1, folder=tmp_path, callbacks=[dog])
        heard = said(capsys)
        assert (words in heard) if words else ("watchdog" not in heard)


def test_phases_without_rollouts_have_fewer_causes() -> None:
    causes: dict[str, Cause | None] = {
        "rate": ZeroLearningRate(warn_after=1), "gradient": ZeroGradient(warn_after=1),
        "reward": ConstantReward(warn_after=1),
    }  # fmt: skip
    assert Watchdog(causes)._possible(SFT.__new__(SFT)) == ["rate", "gradient"]
    assert Watchdog(causes)._possible(GRPO.__new__(GRPO)) == ["rate", "gradient", "reward"]


def test_ranks_see_the_whole_rollout_and_end_together(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank alone sees one reward everywhere; together they see two."""
    modules = [scripted_grpo(codec, ENDING, rewards={"lies": partial(always, value=value)}) for value in (0.25, 0.5)]
    for module in modules:
        fit(module, steps=1, folder=tmp_path)

    def facts(number: int) -> RolloutFacts:
        return facts_of(modules[number])

    both = on_ranks(monkeypatch, [watchdog], [partial(facts, number) for number in range(2)])
    assert [(facts.lowest, facts.highest) for facts in both] == [(0.25, 0.5)] * 2

    def end(number: int) -> str:
        cause = ConstantReward(warn_after=1, stop_after=1)
        dog = Watchdog({"constant_reward": cause})
        monkeypatch.setattr(dog, "_sight", lambda trainer, module: sights[number])
        dog.seen = {}
        trainer = SimpleNamespace(global_step=1, is_global_zero=number == 0, loggers=[], checkpoint_callbacks=[])
        with pytest.raises(SickRun) as caught:
            dog.on_train_batch_end(trainer, modules[number], None, None, 0)  # type: ignore[arg-type]
        return str(caught.value)

    sick = RolloutFacts(0.5, 0.5, {}, 0.0, 0, 0.0)
    sights = [Sight({}, rollout=sick), Sight({}, rollout=RolloutFacts(0.0, 0.5, {}, 0.0, 0, 0.0))]
    first, other = on_ranks(monkeypatch, [watchdog], [partial(end, number) for number in range(2)])
    assert "by constant_reward: every reward is 0.5" in first
    assert "by another rank" in other
