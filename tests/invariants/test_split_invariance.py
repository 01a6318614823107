"""Value and gradient do not depend on how a minibatch is cut: into micro-batches, or over two ranks.

Everything is on: KL, sampler weights, off-policy mask, entropy bonus, dual clip; float64, 1e-10.
"""

import os
import socket
import subprocess
import sys
from itertools import combinations

import pytest
import torch

from invariants.split_cases import CASES, LENGTHS, ROWS, Case, Minibatch, denominator_of, share
from invariants.two_ranks import DEALS
from lightning_r1.functional.diagnostics import combine

ALL = tuple(range(ROWS))
IDS = ["-".join(vars(case).values()) for case in CASES]


def partitions(rows):
    """Every way of cutting ``rows`` into non-empty parts: 52 for five rows."""
    if not rows:
        yield []
        return
    first, rest = rows[0], rows[1:]
    for size in range(len(rest) + 1):
        for others in combinations(rest, size):
            for tail in partitions(tuple(row for row in rest if row not in others)):
                yield [(first, *others), *tail]


@pytest.fixture(scope="module")
def minibatch():
    return Minibatch()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_partition_into_micro_batches(minibatch, case):
    denominator = denominator_of(case, ALL)
    subsets = [subset for size in ALL for subset in combinations(ALL, size + 1)]
    shares = {subset: share(minibatch, subset, case, denominator) for subset in subsets}
    value, gradient, diagnostics = shares[ALL]
    assert gradient.abs().max() > 1e-2
    cuts = list(partitions(ALL))
    assert len(cuts) == 52
    for cut in cuts:
        assert abs(sum(shares[part][0] for part in cut) - value) < 1e-10, cut
        torch.testing.assert_close(sum(shares[part][1] for part in cut), gradient, rtol=0, atol=1e-10)
        combined = combine([shares[part][2] for part in cut])
        assert {k: float(v) for k, v in combined.items()} == pytest.approx(
            {k: float(v) for k, v in diagnostics.items()}, abs=1e-10
        )


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_order_of_rows_is_nothing(minibatch, case):
    denominator = denominator_of(case, ALL)
    value, gradient, _ = share(minibatch, ALL, case, denominator)
    for order in ((4, 3, 2, 1, 0), (3, 0, 4, 1, 2)):
        other_value, other_gradient, _ = share(minibatch, order, case, denominator)
        assert abs(other_value - value) < 1e-10
        torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_a_local_denominator_would_be_seen(minibatch, reduction):
    """Means of means: what the global denominator replaces. A test of the tests above."""
    case = Case("clip", reduction, "token")
    value, _, _ = share(minibatch, ALL, case, denominator_of(case, ALL))
    parts = ((0, 1, 2), (3, 4))
    local = sum(share(minibatch, part, case, denominator_of(case, part))[0] for part in parts) / len(parts)
    assert abs(local - value) > 1e-3


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Both ranks, started once for all cases: {(deal, objective, reduction, level): loss and gradient}."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "invariants.two_ranks"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return torch.load(folder / "ranks.pt")


@pytest.mark.parametrize("deal", DEALS)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_two_ranks_equal_one_process(minibatch, ranks, case, deal):
    assert sorted(row for rank in DEALS[deal] for rows in rank for row in rows) == list(range(len(LENGTHS)))
    value, gradient, _ = share(minibatch, ALL, case, denominator_of(case, ALL))
    both = ranks[(deal, *vars(case).values())]
    assert abs(both[0].item() - value) < 1e-10
    torch.testing.assert_close(both[1:], gradient, rtol=0, atol=1e-10)
