"""One of two gloo ranks: ``python -m invariants.two_ranks RANK PORT FOLDER``.

For each way of dealing the five completions to two ranks, and each objective: counts are summed
over ranks for the denominator, every rank goes through its rows in micro-batches of its own,
gradients and loss are summed over ranks. Rank 0 writes what it holds in the end.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from invariants.split_cases import BUDGET, CASES, LENGTHS, Minibatch, share
from lightning_r1.functional import minibatch_denominator

# deal -> the micro-batches of rank 0, the micro-batches of rank 1
DEALS = {
    "even": (((0, 1), (2,)), ((3, 4),)),
    "one rank has only the empty completion": (((0, 1, 2, 4),), ((3,),)),
    "long against short": (((0,), (2,)), ((1, 3), (4,))),
}


def main(rank, port, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    minibatch = Minibatch()
    results = {}
    for deal, micro_batches in DEALS.items():
        mine = [row for rows in micro_batches[rank] for row in rows]
        counts = torch.tensor([len(mine), int(minibatch.mask[mine].sum())], dtype=torch.float64)
        distributed.all_reduce(counts)
        for case in CASES:
            denominator = minibatch_denominator(
                sequences=counts[0].item(), tokens=counts[1].item(), reduction=case.reduction, token_budget=BUDGET
            )
            shares = [share(minibatch, rows, case, denominator) for rows in micro_batches[rank]]
            loss_and_gradient = torch.cat(
                [torch.tensor([sum(s[0] for s in shares)], dtype=torch.float64), sum(s[1] for s in shares)]
            )
            distributed.all_reduce(loss_and_gradient)
            results[deal, case] = loss_and_gradient
    assert len(LENGTHS) == counts[0]
    if rank == 0:
        torch.save({(deal, *vars(case).values()): x for (deal, case), x in results.items()}, Path(folder) / "ranks.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
