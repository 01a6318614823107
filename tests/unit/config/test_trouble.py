"""Trouble in the middle of work is one line with the way out; what is not known keeps its stack."""

from __future__ import annotations

import errno
import sys

import pytest
import torch

from lightning_r1.config.compose import one_line_errors
from lightning_r1.config.trouble import explain_trouble

COMMAND = ["recipes/train.py", "experiment=mini_r1_zero"]


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def of_cuda() -> BaseException:
    words = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which ..."
    return torch.OutOfMemoryError(words)


AGAIN = "goes on from what is saved: python recipes/train.py experiment=mini_r1_zero"
CASES: dict[str, tuple[BaseException, list[str], int]] = {
    "GPU memory": (
        of_cuda(),
        ["the GPU has no memory left for 2.50 GiB more: lower phase.module.micro_batch_tokens",
         "python recipes/doctor.py ... with the same overrides tells what fits", AGAIN],
        1,
    ),
    "host memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
        ["the host has no memory left for 4096 bytes more", AGAIN],
        1,
    ),
    "a full disk": (
        OSError(errno.ENOSPC, "No space left on device", "outputs/a/checkpoints/step.ckpt.partial"),
        ["no space is left on the disk of outputs/a/checkpoints/step.ckpt.partial; what was saved before is whole",
         "callbacks.checkpoint.keep=1", "python recipes/train.py experiment=mini_r1_zero"],
        1,
    ),
    "a full disk, told by a rank": (
        RuntimeError("rank 1: OSError: [Errno 28] No space left on device"), ["no space is left on the disk;"], 1
    ),
    "a folder of somebody else's": (
        PermissionError(errno.EACCES, "Permission denied", "/root/runs"),
        ["/root/runs: Permission denied; let it be yours, or set paths.output_dir"],
        2,
    ),
    "a port": (
        RuntimeError("The server socket has failed to listen on any local network address. port: 29500, EADDRINUSE"),
        ["port 29500 is taken by another program", "MASTER_PORT="],
        2,
    ),
    "an extra": (
        ModuleNotFoundError("No module named 'lingua'", name="lingua"),
        ["lingua is not installed; install it with pip install 'lightning-r1[lang]'"],
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_trouble_is_one_line_with_a_status(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, words, status = CASES[what]
    monkeypatch.setattr(sys, "argv", [*COMMAND])
    with pytest.raises(SystemExit) as left, one_line_errors():
        raise RuntimeError("of Lightning's") from error
    said = capsys.readouterr().err
    assert left.value.code == status
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_what_fills_memory_while_it_samples_is_told_so() -> None:
    from lightning_r1.rollout import sampling

    code = compile("raise error", sampling.__file__, "exec")
    try:
        exec(code, {"error": of_cuda()})
    except torch.OutOfMemoryError as error:
        told = explain_trouble(error)
    assert told is not None
    assert "lower rollout.max_rows" in told[0]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x"), ImportError("no", name="somebody")])
def test_what_is_not_known_keeps_its_stack(error: BaseException) -> None:
    assert explain_trouble(raised(error, RuntimeError("another"))) is None


def test_the_stack_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(torch.OutOfMemoryError), one_line_errors():
        raise of_cuda()
