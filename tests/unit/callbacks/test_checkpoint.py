"""A checkpoint is whole or does not exist, whatever happens while it is written."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.kills import Killed, kill_before
from helpers.phases import fit, scripted_grpo
from lightning_r1.callbacks import checkpoint
from lightning_r1.callbacks.checkpoint import AtomicCheckpointIO, OneChoice, Saved, StepCheckpoints, newest_checkpoint
from lightning_r1.models.codec import Codec
from lightning_r1.parallel import checkpoint_files
from lightning_r1.parallel.checkpoint_folder import CheckpointError


def file_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:07d}.ckpt"


def write(folder: Path, step: int) -> Path:
    checkpoint = {"global_step": step, "weights": torch.full((1000,), float(step))}
    AtomicCheckpointIO().save_checkpoint(checkpoint, file_of(folder, step))
    return file_of(folder, step)


def newest(folder: Path) -> tuple[int, list[str]]:
    """The step that a resume would take, of a file that loads and is that step's, and what was told."""
    told: list[str] = []
    saved = newest_checkpoint(folder, tell=told.append)
    assert saved is not None
    assert torch.load(saved.path)["weights"].tolist() == [saved.step] * 1000
    return saved.step, told


def steps_in(folder: Path) -> list[int]:
    """Steps of the files; each has its marker, and nothing else lies beside them."""
    files = sorted(folder.glob("*.ckpt"))
    names = {name for file in files for name in (file.name, f"{file.name}.complete")}
    assert {path.name for path in folder.iterdir()} == names
    return [int(file.stem.removeprefix("step-")) for file in files]


def test_a_checkpoint_is_marked_with_its_size_and_step(tmp_path: Path) -> None:
    file = write(tmp_path / "run" / "checkpoints", 7)
    marker = file.with_name("step-0000007.ckpt.complete")
    assert json.loads(marker.read_text()) == {"bytes": file.stat().st_size, "step": 7}
    assert {path.name for path in file.parent.iterdir()} == {file.name, marker.name}
    assert newest(file.parent) == (7, [])


@pytest.mark.parametrize("exists", [True, False])
def test_no_checkpoints_at_all(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path if exists else tmp_path / "nowhere"
    assert newest_checkpoint(folder, tell=pytest.fail) is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"the first half of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space left"):
            write(tmp_path, 2)

    assert newest(tmp_path) == (1, [])
    write(tmp_path, 2)  # there is room again
    assert newest(tmp_path) == (2, [])
    assert steps_in(tmp_path) == [1, 2]


def test_a_killed_process_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    write(tmp_path, 1)

    def die_half_way() -> None:
        def half(checkpoint: Any, file: Any) -> None:
            file.write(b"the first half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half  # in the child alone
        write(tmp_path, 2)

    child = multiprocessing.get_context("fork").Process(target=die_half_way)
    child.start()
    child.join()

    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("step-0000002*")] == ["step-0000002.ckpt.partial"]
    assert newest(tmp_path) == (1, [])


@pytest.mark.parametrize("left", [None, 100], ids=["new name", "name of a file that was cut short"])
def test_a_kill_before_any_operation_leaves_the_old_or_the_new(
    left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for operation in itertools.count():
        folder = tmp_path / str(operation)
        write(folder, 1)
        if left is not None:
            os.truncate(write(folder, 2), left)
        with monkeypatch.context() as patch:
            kill_before(operation, patch)
            try:
                write(folder, 2)
            except Killed:
                step, _ = newest(folder)
                found.append(step)
            else:
                break
        write(folder, 2)  # the resumed run makes it again
        assert newest(folder) == (2, [])
        assert steps_in(folder) == [1, 2]
    # the new one counts from the renaming of its marker on
    assert found == sorted(found)
    assert set(found) == {1, 2}
    assert len(found) >= 7


def test_contents_are_on_disk_before_they_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a power cut may keep a new name and lose what was written under it
    folder, done = tmp_path / "checkpoints", []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        (path,) = (path for path in (folder, *folder.iterdir()) if os.path.samestat(path.stat(), os.fstat(handle)))
        done.append(f"sync {path.name}")
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"name {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    write(folder, 1)
    assert done == [
        "sync step-0000001.ckpt.partial",
        "name step-0000001.ckpt",
        "sync step-0000001.ckpt.complete.partial",
        "name step-0000001.ckpt.complete",
        "sync checkpoints",
    ]


@pytest.mark.parametrize("size", [0, 1000])
def test_a_newest_file_that_was_cut_short_is_passed_over_by_name(size: int, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    whole = file_of(tmp_path, 3).stat().st_size
    os.truncate(file_of(tmp_path, 3), size)
    message = f"checkpoint {file_of(tmp_path, 3)} is passed over: it has {size} bytes of {whole}"
    assert newest(tmp_path) == (2, [message])


@pytest.mark.parametrize("marker", [None, "", '{"bytes": 1'], ids=["none", "empty", "half"])
def test_a_file_without_a_whole_marker_is_passed_over_by_name(marker: str | None, tmp_path: Path) -> None:
    write(tmp_path, 1)
    file = write(tmp_path, 2)
    complete = file.with_name(file.name + ".complete")
    complete.unlink()
    if marker is not None:
        complete.write_text(marker)
    assert newest(tmp_path) == (1, [f"checkpoint {file} is passed over: it was never finished"])


def test_every_broken_file_is_named_and_none_is_chosen(tmp_path: Path) -> None:
    for step in (1, 2):
        os.truncate(write(tmp_path, step), 10)
    told: list[str] = []
    assert newest_checkpoint(tmp_path, tell=told.append) is None
    assert [str(file_of(tmp_path, step)) in line for step, line in enumerate(told, start=1)] == [True, True]


def test_the_newest_is_the_one_of_the_latest_step(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    for step, name in ((12, "a.ckpt"), (9, "z.ckpt"), (100, "b.ckpt")):
        io.save_checkpoint({"global_step": step}, tmp_path / name)
    assert newest_checkpoint(tmp_path, tell=pytest.fail) == Saved(100, tmp_path / "b.ckpt")


def test_removing_takes_the_marker_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    file = write(tmp_path, 2)
    AtomicCheckpointIO().remove_checkpoint(file)
    assert steps_in(tmp_path) == [1]

    file = write(tmp_path, 2)
    with monkeypatch.context() as patch:
        kill_before(1, patch)
        with pytest.raises(Killed):
            AtomicCheckpointIO().remove_checkpoint(file)
    assert newest(tmp_path)[0] == 1  # half removed is removed


@pytest.mark.parametrize(
    ("every", "keep", "expected"), [(1, 2, [6, 7]), (2, 2, [4, 6]), (3, 1, [6]), (1, 10, [1, 2, 3, 4, 5, 6, 7])]
)
def test_the_last_checkpoints_are_kept(
    every: int, keep: int, expected: list[int], codec: Codec, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    fit(
        scripted_grpo(codec),
        steps=7,
        folder=tmp_path,
        callbacks=[StepCheckpoints(folder, every_n_steps=every, keep=keep)],
    )
    assert steps_in(folder) == expected


def test_an_old_checkpoint_goes_only_when_a_newer_one_is_complete(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, remove, removed = tmp_path / "checkpoints", checkpoint_files.remove, []

    def watched(path: Path) -> None:
        saved = newest_checkpoint(folder, tell=pytest.fail)
        assert saved is not None
        removed.append((int(path.stem.removeprefix("step-")), saved.step))
        remove(path)

    monkeypatch.setattr(checkpoint_files, "remove", watched)
    fit(scripted_grpo(codec), steps=4, folder=tmp_path, callbacks=[StepCheckpoints(folder, every_n_steps=1, keep=1)])
    assert removed == [(1, 2), (2, 3), (3, 4)]


def test_interruptions_do_not_leave_checkpoints_behind(codec: Codec, tmp_path: Path) -> None:
    # each of a large model's is as large as the disk is small
    folder, resume = tmp_path / "checkpoints", None
    for steps in (3, 6, 9, 12):
        callbacks = [StepCheckpoints(folder, every_n_steps=1, keep=2)]
        fit(scripted_grpo(codec), steps=steps, folder=tmp_path, callbacks=callbacks, resume=resume)
        assert steps_in(folder) == [steps - 1, steps]
        saved = newest_checkpoint(folder, tell=pytest.fail)
        assert saved is not None
        resume = saved.path


def test_a_run_whose_disk_was_full_goes_on_to_the_same_end(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scripted_grpo(codec)
    fit(whole, steps=5, folder=tmp_path)
    folder, save = tmp_path / "checkpoints", torch.save

    def full_at_3(checkpoint: Any, file: Any) -> None:
        save(checkpoint, file)
        if checkpoint["global_step"] == 3:
            raise OSError("no space left on device")

    def checkpoints() -> Any:
        return StepCheckpoints(folder, every_n_steps=1, keep=1)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_at_3)
        with pytest.raises(OSError, match="no space left"):
            fit(scripted_grpo(codec), steps=5, folder=tmp_path, callbacks=[checkpoints()])
    saved = newest_checkpoint(folder, tell=pytest.fail)
    assert saved == Saved(2, file_of(folder, 2))

    resumed = scripted_grpo(codec)
    fit(resumed, steps=5, folder=tmp_path, callbacks=[checkpoints()], resume=saved.path)
    assert steps_in(folder) == [5]
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_ranks_go_on_from_the_checkpoint_that_the_first_one_sees(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node's view of a shared folder is behind: it finds none, or an older one, and waits for the newest."""
    module, folder = scripted_grpo(codec), tmp_path / "checkpoints"
    trainer = fit(module, steps=2, folder=tmp_path, callbacks=[StepCheckpoints(folder, every_n_steps=1, keep=2)])
    marker = file_of(folder, 2).with_name("step-0000002.ckpt.complete")
    hidden = marker.rename(tmp_path / "not seen yet")
    monkeypatch.setattr(trainer.strategy, "broadcast", lambda mine, src=0: str(file_of(folder, 2)))
    monkeypatch.setattr(time, "sleep", lambda seconds: hidden.exists() and hidden.rename(marker))
    for mine in (None, file_of(folder, 1)):
        choice = OneChoice(trainer)
        choice.resume_start(mine)
        assert choice._loaded_checkpoint["global_step"] == 2
    marker.unlink()
    monkeypatch.setattr(checkpoint, "_APPEARS_S", 0.0)
    with pytest.raises(CheckpointError, match=r"step-0000002\.ckpt: another rank reads it, and it is not to be seen"):
        OneChoice(trainer).resume_start(None)
