"""When a run leaves: before a step that would not end in time, and not while there is time."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.quick import quick_rl, random_base
from helpers.ranks import on_ranks
from helpers.slurm import FakeSlurm
from lightning_r1.callbacks import requeue
from lightning_r1.callbacks.checkpoint import StepCheckpoints
from lightning_r1.callbacks.requeue import KeepsHandlers, Requeue
from lightning_r1.config.build import build
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.interruption import Interrupted, interruption


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now


class Checkpoints(StepCheckpoints):
    """Writes down at which steps it is asked to save."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def save_now(self, trainer: Any) -> None:
        self.saved.append(trainer.global_step)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock.time)
    monkeypatch.setattr(interruption, "stop_at", math.inf)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return clock


class Life:
    """A run of a thousand steps, of which every second one begins with a rollout."""

    def __init__(self, callback: Requeue, clock: Clock, *, rollout_s: float = 100, update_s: float = 10) -> None:
        self.callback, self.clock, self.seconds = callback, clock, (rollout_s, update_s)
        self.checkpoints = Checkpoints()
        self.trainer: Any = SimpleNamespace(
            global_step=0, max_steps=1000, checkpoint_callbacks=[self.checkpoints], loggers=[]
        )
        self.module: Any = RolloutPhase.__new__(RolloutPhase)
        facts: dict[str, Any] = {"buffer": SimpleNamespace(exhausted=True), "flight": None, "last_rollout": None}
        vars(self.module).update(facts)

    def begin(self) -> None:
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, *, checkpoint_s: float = 0) -> None:
        self.callback.on_train_batch_start(self.trainer, self.module, None, 0)
        self.clock.now += self.seconds[self.trainer.global_step % 2]
        self.trainer.global_step += 1
        self.module.buffer.exhausted = self.trainer.global_step % 2 == 0
        self.callback.on_train_batch_end(self.trainer, self.module, None, None, 0)
        self.clock.now += checkpoint_s

    def left_at(self) -> int:
        """The step behind which it leaves."""
        self.begin()
        try:
            while True:
                self.step(checkpoint_s=5 if self.trainer.global_step == 3 else 0)
        except Interrupted as left:
            self.callback.on_exception(self.trainer, self.module, left)
            self.left = left
        return self.trainer.global_step


@pytest.mark.parametrize(
    ("hours", "step", "needed"),
    [
        # two steps are 110 s, the only checkpoint so far took 5 s, 60 s stay free
        (1000 / 3600, 16, 105),  # the 17th would begin with a rollout at 885 s and need 105 s
        (1059 / 3600, 17, 15),  # at 985 s the update does not fit, the rollout before it did
    ],
)
def test_it_leaves_before_a_step_that_would_not_end_in_time(hours: float, step: int, needed: int, clock: Clock) -> None:
    life = Life(Requeue(max_hours=hours), clock)
    assert life.left_at() == step
    assert str(life.left) == f"the time limit is near, and a step takes up to {needed} s"
    assert life.left.requeue
    assert life.checkpoints.saved[-1] == step


def test_a_rollout_in_flight_has_to_land_before_it_is_saved(clock: Clock) -> None:
    life = Life(Requeue(max_hours=1000 / 3600), clock)
    vars(life.module).update(
        flight="in the air", last_rollout=SimpleNamespace(generation_seconds=300.0, reward_seconds=40.0)
    )
    assert life.left_at() == 10  # at 555 s another rollout, the landing and the margin are 505 s


def test_without_a_limit_the_last_step_is_the_end_and_is_saved(clock: Clock) -> None:
    life = Life(Requeue(), clock)
    life.trainer.max_steps = 7
    life.begin()
    for _ in range(7):
        life.step()
    assert life.checkpoints.saved == [7]
    interruption.look()


def test_the_limit_is_slurms_and_may_be_changed(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(seconds: float) -> str:
        return requeue.time.strftime("%Y-%m-%dT%H:%M:%S", requeue.time.localtime(clock.now + seconds))

    slurm = FakeSlurm(tmp_path, monkeypatch)
    slurm.says(end=at(400))
    life = Life(Requeue(poll_s=200), clock)
    life.begin()
    assert interruption.stop_at == clock.now + 340
    slurm.says(end=at(10_000))
    life.step()
    life.step()
    assert len(slurm.asked) == 1
    assert interruption.stop_at == clock.now - 110 + 340
    life.step()  # now it is asked again
    assert len(slurm.asked) == 2
    assert interruption.stop_at == clock.now - 210 + 9_940
    slurm.says(end=at(380))
    for _ in range(4):
        life.step()
    assert len(slurm.asked) == 3
    with pytest.raises(Interrupted, match="the time limit is near"):
        life.step()  # 150 s are left, a rollout and the margin are 160
    assert life.trainer.global_step == 8


def test_a_limit_in_which_no_step_fits_is_no_reason_to_try_again(clock: Clock) -> None:
    life = Life(Requeue(max_hours=30 / 3600), clock)
    life.begin()
    with pytest.raises(Interrupted) as left:
        interruption.look()  # as the first rollout does
    life.callback.on_exception(life.trainer, life.module, left.value)
    assert not left.value.requeue
    assert str(left.value) == "the time limit is near, in which no step fits: give it more time"


def test_ranks_leave_together_and_know_the_limit_of_the_first(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    lives = [Life(Requeue(max_hours=hours), clock) for hours in (1, 2)]

    def work(life: Life, cause: str) -> Any:
        life.begin()
        life.callback.longest["rollout"] = 100.0
        told = life.callback.deadline
        monkeypatch.setattr(interruption, "cause", cause)
        return told, life.callback._agree(life.module)

    (first, why), (second, also) = on_ranks(
        monkeypatch, [requeue], [lambda: work(lives[0], ""), lambda: work(lives[1], "it received SIGTERM")]
    )
    assert first == second == clock.now + 3600
    assert why == also == "it received SIGTERM"


def test_lightnings_handlers_are_kept_out(tmp_path: Path) -> None:
    run = build(quick_rl(tmp_path, random_base(tmp_path / "base"), "logger=csv"))
    try:
        assert isinstance(run.trainer._signal_connector, KeepsHandlers)
    finally:
        run.close()


@pytest.mark.parametrize("options", [{"margin_s": -1}, {"max_hours": 0}, {"poll_s": 0}, {"max_restarts": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="requeue: margin_s="):
        Requeue(**options)


def test_a_job_of_which_a_rank_has_crashed_is_not_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(value: object) -> list[object]:
        raise RuntimeError("Connection closed by peer")

    told: list[bool] = []
    for meeting, requeued in ((lambda value: [value], True), (gone, False)):
        monkeypatch.setattr(requeue, "all_gather", meeting)
        requeue.leave_together(Interrupted("it received SIGTERM"), lambda left: told.append(left.requeue))
        assert told[-1] is requeued
