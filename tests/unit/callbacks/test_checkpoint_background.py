"""Checkpoints in folders, at once and beside training: whole or not there, whatever happens."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from helpers.checkpoints import whole
from helpers.kills import Killed, kill_before
from helpers.phases import fit, scripted_grpo
from lightning_r1.callbacks.checkpoint import Saved, StepCheckpoints, newest_checkpoint
from lightning_r1.models.codec import Codec
from lightning_r1.parallel import checkpoint_folder
from lightning_r1.parallel.checkpoint_background import Background
from lightning_r1.parallel.checkpoint_files import remove_leftovers
from lightning_r1.parallel.checkpoint_folder import CheckpointError

TWICE = {"num_iterations": 2}  # a rollout is two steps


def checkpoints(tmp_path: Path, *, every: int = 1, keep: int = 9, asynchronous: bool = True) -> StepCheckpoints:
    return StepCheckpoints(tmp_path / "checkpoints", every_n_steps=every, keep=keep, asynchronous=asynchronous)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(ours, theirs) for ours, theirs in zip(one.parameters(), other.parameters(), strict=True))


class AtStep(L.Callback):
    """Does something behind a step."""

    def __init__(self, step: int, work: Any) -> None:
        self.step, self.work = step, work

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        if trainer.global_step == self.step:
            self.work(trainer)


def test_what_is_written_beside_training_is_what_was_there_at_its_step(codec: Codec, tmp_path: Path) -> None:
    for kind, asynchronous in (("beside", True), ("file", False)):
        callbacks = [checkpoints(tmp_path / kind, asynchronous=asynchronous)]
        fit(scripted_grpo(codec, **TWICE), steps=5, folder=tmp_path, callbacks=callbacks)
    assert names(tmp_path / "beside") == [f"step-000000{step}" for step in range(1, 6)]
    for step in range(1, 6):
        ours, theirs = (whole(tmp_path / kind, step) for kind in ("beside", "file"))
        for name, tensor in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"].get(name, tensor), tensor)
        assert len(ours["state_dict"]) > 3
        states = theirs["optimizer_states"][0]["state"]
        assert len(ours["optimizer"]) == sum(map(len, states.values()))
        assert sorted(float(tensor.sum()) for name, tensor in ours["optimizer"].items() if "exp_avg_sq" in name) == (
            sorted(float(state["exp_avg_sq"].sum()) for state in states.values())
        )
        assert ours["lightning_r1"]["drawn"] == theirs["lightning_r1"]["drawn"]
        assert bool(ours["ranks"][0]["buffer"]) == bool(theirs["ranks"][0]["buffer"]) == bool(step % 2)


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_goes_on_from_a_folder_in_the_same_bits(
    step: int, dtype: torch.dtype, codec: Codec, tmp_path: Path
) -> None:
    def module() -> Any:
        made = scripted_grpo(codec, **TWICE, kl_coef=0.1)
        made.policy.to(dtype)
        return made

    undisturbed, resumed = module(), module()
    fit(undisturbed, steps=5, folder=tmp_path, callbacks=[checkpoints(tmp_path)])
    folder = tmp_path / "checkpoints" / f"step-{step:07d}"
    fit(resumed, steps=5, folder=tmp_path, resume=folder)
    assert same(resumed, undisturbed)


def test_training_goes_on_while_it_is_written(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first checkpoint is not finished before the third step is: would training wait, it would for ever."""
    goes_on, write, found = threading.Event(), checkpoint_folder.write_synced, []

    def slow(*arguments: Any) -> int:
        assert goes_on.wait(60), "training has waited for the disk"
        return write(*arguments)

    def at_three(trainer: L.Trainer) -> None:
        found.extend(names(tmp_path))
        goes_on.set()

    monkeypatch.setattr(checkpoint_folder, "write_synced", slow)
    callbacks = [AtStep(2, at_three), checkpoints(tmp_path, every=1)]
    # the save of step 2 waits for that of step 1, so that the event has to come before it
    fit(scripted_grpo(codec), steps=3, folder=tmp_path, callbacks=callbacks)
    assert found == ["step-0000001.partial"]
    assert names(tmp_path) == ["step-0000001", "step-0000002", "step-0000003"]


@pytest.mark.parametrize("when", ["next step", "end"])
def test_an_error_in_the_background_ends_the_run_by_name(
    when: str, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> int:
        raise OSError("no space left on device")

    every = 3 if when == "end" else 2
    callbacks = [checkpoints(tmp_path, every=every)]
    trainers: list[L.Trainer] = []

    def fill(trainer: L.Trainer) -> None:
        trainers.append(trainer)
        monkeypatch.setattr(checkpoint_folder, "write_synced", full)

    def written(trainer: L.Trainer) -> None:  # the thread has ended before the next look
        trainer.strategy.background.settle()  # type: ignore[attr-defined]

    with pytest.raises(CheckpointError, match=r"step-000000\d could not be written \(rank 0\): OSError: no space") as e:
        fit(
            scripted_grpo(codec),
            steps=3,
            folder=tmp_path,
            callbacks=[AtStep(1, fill), AtStep(3, written), *callbacks],
        )
    assert trainers[0].global_step == 3
    assert "callbacks.checkpoint.asynchronous" in e.value.__notes__[0]
    assert newest_checkpoint(tmp_path / "checkpoints", tell=pytest.fail) is None


def die_at_three(codec: Codec, tmp_path: Path) -> None:
    write = checkpoint_folder.write_synced

    def dying(path: Path, *arguments: Any) -> int:
        if "step-0000003" in str(path) and path.name == "common.pt":
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, *arguments)

    checkpoint_folder.write_synced = dying  # in the child alone
    fit(scripted_grpo(codec), steps=9, folder=tmp_path, callbacks=[checkpoints(tmp_path)])


def test_a_kill_while_it_is_written_leaves_the_former(codec: Codec, tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=die_at_three, args=(codec, tmp_path))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    saved = newest_checkpoint(tmp_path / "checkpoints", tell=pytest.fail)
    assert saved == Saved(2, tmp_path / "checkpoints" / "step-0000002")
    assert names(tmp_path)[-1] == "step-0000003.partial"

    undisturbed, resumed = scripted_grpo(codec), scripted_grpo(codec)
    fit(undisturbed, steps=5, folder=tmp_path)
    fit(resumed, steps=5, folder=tmp_path, callbacks=[checkpoints(tmp_path, keep=2)], resume=saved.path)
    assert same(resumed, undisturbed)
    assert names(tmp_path) == ["step-0000004", "step-0000005"]


def test_a_kill_before_any_operation_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for files; the name is that of a folder that was cut short."""
    found: list[int] = []
    for operation in range(99):
        folder = tmp_path / str(operation)
        write_folder(folder, 1)
        (write_folder(folder, 2) / "common.pt").write_bytes(b"")
        with monkeypatch.context() as patch:
            kill_before(operation, patch)
            try:
                write_folder(folder, 2)
            except (Killed, CheckpointError):  # torch hides what it meets in one of its own
                saved = newest_checkpoint(folder, tell=lambda why: None)
                assert saved is not None
                found.append(saved.step)
            else:
                break
        remove_leftovers(folder)
        assert not list(folder.glob("*.partial"))
        assert newest_checkpoint(folder, tell=lambda why: None) is not None
    assert found == sorted(found)
    assert set(found) == {1, 2}
    assert len(found) >= 10


def write_folder(folder: Path, step: int) -> Path:
    tensors = {"model.weight": torch.full((100,), float(step))}
    common = checkpoint_folder.as_bytes({"global_step": step})
    path = folder / f"step-{step:07d}"
    checkpoint_folder.write_folder(checkpoint_folder.Contents(step, tensors, common, {}), path, None)
    return path


@pytest.mark.parametrize("name", ["__0_0.distcp", "rank-00000.pt", "common.pt", ".metadata"])
@pytest.mark.parametrize("left", [10, None])
def test_a_folder_that_lacks_anything_is_passed_over_by_name(name: str, left: int | None, tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    file = write_folder(tmp_path, 2) / name
    size = file.stat().st_size
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left)
    told: list[str] = []
    saved = newest_checkpoint(tmp_path, tell=told.append)
    assert saved is not None
    assert saved.step == 1
    assert told == [f"checkpoint {file.parent} is passed over: {name} has {left or 0} bytes of {size}"]


def test_the_marker_knows_every_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, 1)
    facts = json.loads((folder / ".complete").read_text())
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != ".complete"}
    assert facts == {"step": 1, "files": sizes}


def test_leftovers_are_removed_when_a_run_begins_and_nothing_else_is(codec: Codec, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    write_folder(folder, 1)
    (write_folder(folder, 2) / ".complete").unlink()
    shutil.copytree(write_folder(folder, 3), folder / "step-0000004.partial")
    (folder / "step-0000005.ckpt.partial").write_text("half")
    (folder / "step-0000006.ckpt").write_text("unmarked")
    (folder / "step-0000007.ckpt.complete").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    fit(scripted_grpo(codec), steps=1, folder=tmp_path, callbacks=[checkpoints(tmp_path, every=5)])
    assert names(tmp_path) == ["notes.txt", "step-0000001", "step-0000003"]


def test_files_and_folders_are_kept_by_their_steps(codec: Codec, tmp_path: Path) -> None:
    resume = None
    for steps, asynchronous in ((2, False), (4, True), (5, False)):
        callbacks = [checkpoints(tmp_path, keep=2, asynchronous=asynchronous)]
        fit(scripted_grpo(codec), steps=steps, folder=tmp_path, callbacks=callbacks, resume=resume)
        saved = newest_checkpoint(tmp_path / "checkpoints", tell=pytest.fail)
        assert saved is not None
        assert saved.step == steps
        resume = saved.path
    assert names(tmp_path) == ["step-0000004", "step-0000005.ckpt", "step-0000005.ckpt.complete"]


def test_saving_now_returns_when_it_is_on_the_disk(codec: Codec, tmp_path: Path) -> None:
    callback, found = checkpoints(tmp_path, every=9), []

    def save(trainer: L.Trainer) -> None:
        callback.save_now(trainer)
        callback.save_now(trainer)  # once is enough
        found.append(newest_checkpoint(tmp_path / "checkpoints", tell=pytest.fail))

    fit(scripted_grpo(codec), steps=3, folder=tmp_path, callbacks=[AtStep(2, save), callback])
    assert found == [Saved(2, tmp_path / "checkpoints" / "step-0000002")]


def test_nothing_is_written_at_a_step_that_was_not_asked_for() -> None:
    for key in ("every_n_steps", "keep"):
        with pytest.raises(ValueError, match=rf"^callbacks\.checkpoint\.{key}=0: expected >= 1"):
            StepCheckpoints(Path(), **{"every_n_steps": 1, "keep": 1, key: 0})


def test_background_work_is_one_thing_at_a_time() -> None:
    background, free = Background(), threading.Event()
    background.start(free.wait)
    background.look()  # still at it: nobody waits
    with pytest.raises(AssertionError, match="wait for the former"):
        background.start(free.wait)
    free.set()
    background.wait()
    background.start(lambda: None)
    background.wait()
