"""One exact optimizer step: what is skipped, what is clipped, what is logged, what is refused on resuming."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from helpers.logs import Memory
from helpers.models import tiny_policy
from helpers.phases import fit
from helpers.prompts import mini_codec
from helpers.shards import culprit, on_processes
from lightning_r1.experience.batching import Layouts, MicroBatch, blank
from lightning_r1.models.codec import Codec
from lightning_r1.modules import phase as phase_module
from lightning_r1.modules.phase import Phase
from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.schedule import warmup_then


class Pair(nn.Module):
    """The smallest policy with a first and a second parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))


Loss = Callable[[Pair], Tensor]


def fine(policy: Pair) -> Tensor:
    """Gradients 3, 3, 3 and 1, 1, 1, 1: a norm of 31 ** 0.5."""
    return 3 * policy.first.sum() + policy.second.sum()


def nan_loss(policy: Pair) -> Tensor:
    return fine(policy) * math.nan


def infinite_loss(policy: Pair) -> Tensor:
    return fine(policy) + math.inf


def nan_gradient(policy: Pair) -> Tensor:
    """The root of 0 * x at 0: its slope is infinite, times 0."""
    return fine(policy) + (0 * policy.second).sqrt().sum()


def infinite_gradient(policy: Pair) -> Tensor:
    return fine(policy) + (policy.second - policy.second.detach()).sqrt().sum()


class Scripted(Phase):
    """A phase whose loss at each tick is what the script says."""

    def __init__(self, script: Sequence[Loss], codec: Codec | None = None, **phase: Any) -> None:
        defaults = {"optimizer": partial(adamw, lr=0.1), "schedule": partial(warmup_then, shape="linear")}
        super().__init__(policy=Pair(), codec=codec or mini_codec(), **{**defaults, **phase})
        self.script = script

    def training_step(self, tick: int, index: int) -> None:
        def loss(batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
            return self.script[tick](self.policy), {"tokens": torch.ones(())}

        sums = self.update([blank(0)], loss)
        numbers = {f"test/{name}": float(value) for name, value in sums.items()}
        self.log_step(numbers | {f"test/only_at_tick_{tick}": 1.0}, tokens=5)


class Snapshots(L.Callback):
    """Everything that a step may change, after each of them."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        now = {
            "weights": pl_module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "step": trainer.global_step,
        }
        self.taken.append(copy.deepcopy(now))


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def run(script: Sequence[Loss], folder: Path, *, steps: int, **phase: Any) -> tuple[Scripted, Memory, list[Any]]:
    module, memory, snapshots = Scripted(script, **phase), Memory(), Snapshots()
    fit(module, steps=steps, folder=folder, callbacks=[snapshots], loggers=[memory])
    return module, memory, snapshots.taken


@pytest.mark.parametrize(
    ("bad", "culprit"),
    [
        (nan_loss, "the loss (nan)"),
        (infinite_loss, "the loss (inf)"),
        (nan_gradient, "the gradient of second"),
        (infinite_gradient, "the gradient of second"),
    ],
)
def test_a_step_that_is_not_finite_is_skipped_by_name(
    bad: Loss, culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, memory, taken = run([fine, bad, fine], tmp_path, steps=2)
    assert f"step 1: {culprit} is not finite; the step is skipped" in capsys.readouterr().out
    assert same(taken[1], taken[0])
    assert not same(taken[2], taken[0])
    assert memory.column("test/skipped_max") == [0, 1, 0]
    # as if it had never been
    whole, _, _ = run([fine, fine], tmp_path, steps=2)
    assert same(module.state_dict(), whole.state_dict())


def test_the_first_step_may_be_skipped_too(tmp_path: Path) -> None:
    module, _, taken = run([nan_gradient, fine], tmp_path, steps=1)
    assert taken[0]["optimizer"]["state"] == {}
    assert taken[0]["weights"]["policy.first"].tolist() == [1] * 3
    whole, _, _ = run([fine], tmp_path, steps=1)
    assert same(module.state_dict(), whole.state_dict())


@pytest.mark.parametrize("most", [1, 3])
def test_too_many_skipped_steps_in_a_row_end_the_run(most: int, tmp_path: Path) -> None:
    script = [fine, *[nan_loss] * most, fine]
    with pytest.raises(RuntimeError) as caught:
        run(script, tmp_path, steps=2, max_skipped_steps=most)
    said = str(caught.value)
    assert f"step 1: the loss (nan) is not finite ({most} in a row)." in said
    assert "Lower optim.lr" in said
    assert "\n" not in said


def test_a_finite_step_begins_the_count_anew(tmp_path: Path) -> None:
    script = [nan_loss, nan_gradient, fine, nan_loss, nan_loss, fine, nan_loss]
    module, memory, _ = run(script, tmp_path, steps=2, max_skipped_steps=3)
    assert memory.column("test/skipped_max") == [1, 1, 0, 1, 1, 0]
    assert module.skipped_in_a_row == 0


def plain(named_parameters: Any) -> torch.optim.Optimizer:
    """A step is minus the gradient."""
    return torch.optim.SGD([parameter for _, parameter in named_parameters], lr=1.0)


def constant(optimizer: torch.optim.Optimizer, **options: Any) -> torch.optim.lr_scheduler.LRScheduler:
    return warmup_then(optimizer, shape="constant", **options)


@pytest.mark.parametrize("largest", [0.5, 5.5, 5.6, 100.0])
def test_the_gradient_is_clipped_and_its_norm_logged_as_it_was(largest: float, tmp_path: Path) -> None:
    module, memory, _ = run([fine], tmp_path, steps=1, max_grad_norm=largest, optimizer=plain, schedule=constant)
    moved = torch.cat([1 - module.policy.first, 1 - module.policy.second]).detach()
    gradient = torch.tensor([3.0] * 3 + [1.0] * 4)
    norm = 31**0.5  # 5.57
    assert memory.column("test/grad_norm_max") == pytest.approx([norm], rel=1e-6)
    assert moved.norm() <= largest * (1 + 1e-6)
    torch.testing.assert_close(moved, gradient * min(1, largest / norm), rtol=1e-5, atol=0)


def test_a_steps_gradient_is_its_own(tmp_path: Path) -> None:
    module, _, _ = run([fine] * 3, tmp_path, steps=3, max_grad_norm=100.0, optimizer=plain, schedule=constant)
    assert module.policy.first.tolist() == [1 - 3 * 3.0] * 3


def test_ranks_run_as_many_micro_batches_as_the_one_that_has_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counting(Scripted):
        def training_step(self, tick: int, index: int) -> None:
            def loss(batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
                seen.append(int(batch.completion_mask.sum()))
                return fine(self.policy) * batch.completion_mask.sum(), {"tokens": batch.completion_mask.sum()}

            row = blank(0)
            row.completion_mask.fill_(True)
            sums = self.update([row], loss)
            assert sums["tokens"] == 1

    monkeypatch.setattr(phase_module, "all_max", lambda count: count + 2)
    module = Counting([fine], optimizer=plain, schedule=constant, max_grad_norm=100.0)
    fit(module, steps=1, folder=tmp_path)
    assert seen == [1, 0, 0]
    assert module.policy.first.tolist() == [1 - 3.0] * 3


def test_every_step_is_logged_once_and_nothing_twice(tmp_path: Path) -> None:
    module, memory, _ = run([fine] * 4, tmp_path, steps=4, schedule=partial(warmup_then, shape="linear"))
    assert [step for step, _ in memory.rows] == [1, 2, 3, 4]
    for tick, (_, numbers) in enumerate(memory.rows):
        assert [name for name in numbers if "only" in name] == [f"test/only_at_tick_{tick}"]
        assert numbers["memory/peak_gib"] > 0
        assert numbers["perf/tokens_per_s"] > 0
    assert module.tokens == 20
    assert module.seconds > 0
    assert module.latest == memory.rows[-1][1]


def test_utilisation_is_logged_where_the_peak_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, memory, _ = run([fine], tmp_path / "cpu", steps=1)
    assert "perf/mfu" not in memory.rows[0][1]
    monkeypatch.setattr(phase_module, "peak_flops", lambda device: 1000.0)
    module, memory, _ = run([fine], tmp_path / "gpu", steps=1)
    # 7 parameters, 5 tokens
    assert memory.rows[0][1]["perf/mfu"] == pytest.approx(6 * 7 * 5 / (module.seconds * 1000.0))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a run that has made one step of three."""
    module = Scripted([fine] * 3)
    trainer = fit(module, steps=1, folder=tmp_path)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    return tmp_path / "one.ckpt"


def test_a_run_goes_on_from_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    module, memory = Scripted([fine] * 3), Memory()
    fit(module, steps=3, folder=tmp_path, loggers=[memory], resume=checkpoint)
    assert [step for step, _ in memory.rows] == [2, 3]
    assert module.tokens == 15


@pytest.mark.parametrize("fields", [{"prefill": ""}, {"prompt": "Q: {question}"}, {"stop": (";",)}])
def test_a_checkpoint_of_another_template_is_refused(fields: dict[str, Any], checkpoint: Path, tmp_path: Path) -> None:
    module = Scripted([fine] * 3, codec=mini_codec(**fields))
    before = copy.deepcopy(module.state_dict())
    made, ours = mini_codec().fingerprint(), module.codec.fingerprint()
    with pytest.raises(
        ValueError, match=rf"^template: .* made under {made}, this run has {ours}\. Take the template .*another name="
    ):
        fit(module, steps=3, folder=tmp_path, resume=checkpoint)
    assert same(module.state_dict(), before)


def test_the_learning_rate_is_logged_that_the_step_used(tmp_path: Path) -> None:
    schedule = partial(warmup_then, shape="constant", warmup_steps=4)
    _, memory, _ = run([fine] * 6, tmp_path, steps=6, optimizer=partial(adamw, lr=0.1), schedule=schedule)
    assert memory.column("optim/lr") == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_what_cannot_be_packed_is_padded_or_refused() -> None:
    """Auto falls back, on says why."""
    eager = tiny_policy("gemma2")
    eager.model.config._attn_implementation = "eager"
    for policy, why in ((Pair(), "this phase trains on padded rows"), (eager, "attention eager knows no packed rows")):
        assert phase_module.layouts_of(policy, "auto", "auto") == Layouts()
        for said in ({"packing": "on", "shared_prefix": "off"}, {"packing": "auto", "shared_prefix": "on"}):
            key = next(name for name, value in said.items() if value == "on")
            with pytest.raises(ValueError, match=f"phase.module.{key}=on: {why}"):
                phase_module.layouts_of(policy, **said)
    with pytest.raises(ValueError, match=r"phase\.module\.packing='yes': expected auto, on or off"):
        phase_module.layouts_of(Pair(), "yes", "auto")


def test_packing_is_automatic_with_flash_attention() -> None:
    policy = tiny_policy("qwen3")
    assert phase_module.layouts_of(policy, "auto", "auto") == Layouts(packed=False, shared_prefix="auto")
    policy.model.config._attn_implementation_internal = "flash_attention_2"
    assert phase_module.layouts_of(policy, "auto", "off") == Layouts(packed=True, shared_prefix="off")


def test_every_rank_names_the_gradient_whose_slice_one_of_them_has(tmp_path: Path) -> None:
    assert on_processes(2, culprit, tmp_path / "ranks") == ["the gradient of down.weight"] * 2
