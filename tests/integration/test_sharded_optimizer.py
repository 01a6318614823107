"""Optimizers over ranks: the same bits sharded, under DDP and in one process, resumed on as many ranks or on others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

from integration.sharded_optimizer import CHANGES, FORMS

Parts = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Parts]:
    """What four ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "integration.sharded_optimizer"]
    ranks = [
        subprocess.Popen([*command, str(rank), port, str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(4)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * 4, errors
    return torch.load(folder / "made.pt")


def assert_same(one: Parts, two: Parts, *, steps_of: str = "") -> None:
    """The same bits; torch's own kernel counts the last entries of a tensor, fewer than 16, by other instructions."""
    rounding = 1e-6 if steps_of.startswith("32") else 0.0
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=rounding, atol=rounding / 10, msg=name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["2", "4", "ddp"])
def test_ranks_step_as_one_process(made: dict[tuple[str, str], Parts], form: str, how: str) -> None:
    assert_same(made[form, how], made[form, "1"], steps_of=form)


@pytest.mark.parametrize(("form", "change"), [(form, change) for form in FORMS for change in CHANGES[form]])
def test_any_number_of_ranks_loads_the_same_bits_and_goes_on_in_them(
    made: dict[tuple[str, str], Parts], form: str, change: tuple[int, int]
) -> None:
    before, after = change
    assert_same(made[form, f"{before} to {after}"], made[form, f"{before}"])
    assert_same(made[form, f"{before} to {after}, on"], made[form, "on"], steps_of=form)


def test_codes_are_what_is_compared(made: dict[tuple[str, str], Parts]) -> None:
    before, after = made["8 bits", "4"], made["8 bits", "4 to 1, on"]
    assert before["odd exp_avg_codes"].dtype == torch.uint8
    assert before["odd exp_avg_codes"].shape == (10, 300)
    assert before["odd exp_avg_maxima"].shape == (10, 2)
    assert not torch.equal(before["odd exp_avg_codes"], after["odd exp_avg_codes"])
    assert "embed exp_avg" in before
    assert "norm exp_avg" in before
    assert made["8 bits, masters", "4"]["embed master"].dtype == torch.float32
