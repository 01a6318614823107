"""Rollouts beside the update: they really overlap, are one rollout old, and fail and end as they should."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from helpers.engine import ScriptedEngine
from helpers.logs import Memory
from helpers.phases import fit, scripted_grpo
from lightning_r1.models.codec import Codec
from lightning_r1.modules.grpo import GRPO
from lightning_r1.types import Group

OVERLAP = {"overlap_rollouts": True, "sampler_correction": "truncate"}


class WaitingEngine(ScriptedEngine):
    """From the second call on it answers only when the update that it should overlap with has begun."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.updating = threading.Event()
        self.threads: list[threading.Thread] = []
        self.synced: list[int] = []

    def generate(self, *arguments: Any, **how: Any) -> list[Group]:
        self.threads.append(threading.current_thread())
        assert not self.asleep
        if len(self.calls):
            assert self.updating.wait(60), "the update waits for the rollout that should overlap with it"
        return super().generate(*arguments, **how)

    def sync_weights(self, version: int) -> None:
        self.synced.append(version)
        super().sync_weights(version)


def overlapped(codec: Codec, engine: type[ScriptedEngine] = ScriptedEngine, **algorithm: Any) -> GRPO:
    module = scripted_grpo(codec, **{**OVERLAP, **algorithm})
    module.engine = engine(codec, module.engine.script)  # type: ignore[attr-defined]
    return module


def test_the_next_rollout_is_sampled_while_this_one_trains(codec: Codec, tmp_path: Path) -> None:
    module = overlapped(codec, WaitingEngine, num_iterations=2)
    engine = module.engine
    assert isinstance(engine, WaitingEngine)

    class Begin(L.Callback):
        def on_before_optimizer_step(self, *arguments: Any) -> None:
            engine.updating.set()

        def on_train_batch_start(self, trainer: L.Trainer, *arguments: Any) -> None:
            # the first step of a rollout: what is in flight has to wait for the step that it goes beside
            if trainer.global_step % 2 == 0:
                engine.updating.clear()

    memory = Memory()
    fit(module, steps=6, folder=tmp_path, callbacks=[Begin()], loggers=[memory])
    main = threading.main_thread()
    assert [thread is main for thread in engine.threads] == [True, False, False]
    assert engine.synced == [0, 2, 4]
    assert memory.column("rollout/staleness_mean") == [0, 2, 2]
    assert len(memory.column("time/rollout_wait_s")) == 2  # the first was not in flight
    assert engine.asleep  # nobody needs a fourth
    assert module.flight is None


def test_prompts_come_in_the_same_order_as_without(codec: Codec, tmp_path: Path) -> None:
    modules = [scripted_grpo(codec), overlapped(codec)]
    for module in modules:
        fit(module, steps=5, folder=tmp_path)
    plain, beside = ([(call[0], call[2]) for call in module.engine.calls] for module in modules)  # type: ignore[attr-defined]
    assert beside == plain
    assert modules[0].drawn == modules[1].drawn == 10


@pytest.mark.parametrize("steps", [1, 2])
def test_older_logprobs_are_scored_by_the_policy_that_learns(steps: int, codec: Codec, tmp_path: Path) -> None:
    module = overlapped(codec)
    memory = Memory()
    fit(module, steps=steps, folder=tmp_path, loggers=[memory])
    assert module.buffer.sequences.old_logprobs is not None
    assert memory.column("policy/ratio_max")[-1] == pytest.approx(1, abs=1e-5)


def test_a_refill_at_the_boundary_is_of_the_newest_weights(codec: Codec, tmp_path: Path) -> None:
    dead = {"1": [";;"], "2": ["</think><answer>2</answer><eos>", "1;2</think><answer>2</answer><eos>", ";;"]}
    module = scripted_grpo(codec, dead, **OVERLAP, dead_groups="refill", max_refills=2)
    seen: list[list[int]] = []

    class Versions(L.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            rollout = module.last_rollout
            assert rollout is not None
            seen.append([scored.group.completions[0].policy_version for scored in rollout.scored])

    fit(module, steps=3, folder=tmp_path, callbacks=[Versions()])
    assert seen == [[0, 0], [0, 1], [1, 2]]


class FailingEngine(ScriptedEngine):
    """Answers once."""

    def generate(self, *arguments: Any, **how: Any) -> list[Group]:
        if self.calls:
            raise OSError("the server has gone")
        return super().generate(*arguments, **how)


def test_what_fails_beside_the_update_is_raised_at_the_boundary(codec: Codec, tmp_path: Path) -> None:
    module = overlapped(codec, FailingEngine, num_iterations=2)
    with pytest.raises(OSError, match="the server has gone"):
        fit(module, steps=6, folder=tmp_path)
    assert module.global_step == 2  # the steps that had their rollout were made


class DeafEngine(ScriptedEngine):
    """Never answers again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.never = threading.Event()

    def generate(self, *arguments: Any, **how: Any) -> list[Group]:
        if self.calls:
            self.never.wait()
        return super().generate(*arguments, **how)


def test_a_run_that_ends_does_not_wait_for_its_engine(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = overlapped(codec, DeafEngine)

    class Stop(L.Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            raise KeyError("something else is wrong")

    with pytest.raises(KeyError):
        fit(module, steps=6, folder=tmp_path, callbacks=[Stop()])
    flight = module.flight
    assert flight is not None
    abandon: Callable[..., None] = flight.abandon
    monkeypatch.setattr(flight, "abandon", lambda: abandon(patience_s=0.01))
    module.close()
    module.engine.never.set()  # type: ignore[attr-defined]
    flight.settle()
    assert flight.state_dict() is None  # when it answers after all, nobody wants it


def test_an_engine_that_cannot_is_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedEngine, "beside_training", False)
    with pytest.raises(ValueError, match=r"algo\.overlap_rollouts=true: a ScriptedEngine cannot sample while"):
        scripted_grpo(codec, **OVERLAP)
