"""One of four gloo ranks: ``python -m integration.sharded_optimizer RANK PORT FOLDER``.

The same steps, with gradients that are given, on parameters as they are, sharded over two and over four ranks as FSDP2
shards them, and under DDP; checkpoints of one number of ranks are resumed on others. Rank 0 writes what came out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import adamw8bit
from lightning_r1.optim.master import stepped_on

# over four ranks the first has an empty shard, the second uneven ones
SHAPES = {"few": (3, 300), "odd": (10, 300), "whole": (8, 512), "stack": (6, 3, 100), "embed": (16, 256), "norm": (64,)}
FORMS = {
    "8 bits": (adamw8bit, torch.float32, {"min_8bit_size": 256}),
    "8 bits, masters": (adamw8bit, torch.bfloat16, {"min_8bit_size": 256, "embeddings": 8}),
    "32 bits, masters": (adamw, torch.bfloat16, {}),
}
CHANGES = dict.fromkeys(FORMS, ((2, 2), (4, 4), (1, 2), (2, 4), (4, 1), (2, 1))) | {"32 bits, masters": ((2, 1),)}
STEPS, RESUMED = 3, 2


class Model(nn.Module):
    """Parameters and nothing else."""

    def __init__(self, form: str) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            value = (0.02 * torch.randn(shape, generator=make)).bfloat16().to(FORMS[form][1])
            setattr(self, name, nn.Parameter(value))

    def forward(self, slopes: dict[str, Tensor]) -> Tensor:
        """Whose gradients are the slopes."""
        return sum(((parameter * slopes[name]).sum() for name, parameter in self.named_parameters()), torch.zeros(()))


class Run:
    """A model, its optimizer, and where they lie: None is this rank alone."""

    def __init__(self, form: str, mesh: DeviceMesh | None) -> None:
        self.form, self.mesh, self.model = form, mesh, Model(form)
        if mesh is not None:
            fully_shard(self.model, mesh=mesh)
        factory, _, options = FORMS[form]
        self.optimizer = factory(self.model.named_parameters(), lr=1e-2, weight_decay=0.1, **options)

    def walk(self, steps: range) -> Run:
        for step in steps:
            for name, gradient in slopes(self.form, step).items():
                parameter = self.model.get_parameter(name)
                if isinstance(parameter, DTensor):
                    gradient = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self

    def named(self) -> dict[str, Any]:
        return get_optimizer_state_dict(self.model, self.optimizer)

    def parts(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that there is, whole."""
        for name, parameter in self.model.named_parameters():
            yield name, whole(parameter)
            yield f"{name} stepped on", whole(stepped_on(self.optimizer, parameter))
        for name, state in self.named()["state"].items():
            for key, value in state.items():
                yield f"{name} {key}", whole(value)

    def save(self, folder: Path) -> None:
        dcp.save({"optimizer": self.named(), "model": self.weights()}, checkpoint_id=folder, **self.group())

    def load(self, folder: Path) -> Run:
        state = {"optimizer": self.named(), "model": self.weights()}
        dcp.load(state, checkpoint_id=folder, **self.group())
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"])
        return self

    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def group(self) -> dict[str, Any]:
        return {"process_group": ALONE if self.mesh is None else self.mesh.get_group()}


def slopes(form: str, step: int) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(step + 1)
    return {name: torch.randn(shape, generator=make).bfloat16().to(FORMS[form][1]) for name, shape in SHAPES.items()}


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def under_ddp(form: str, rank: int) -> dict[str, Tensor]:
    """Ranks 0 and 1: gradients that differ by rank and whose mean is that of a process."""
    run = Run(form, None)
    model = DistributedDataParallel(run.model, process_group=TWO)
    for step in range(STEPS):
        factor = 0.5 if rank == 0 else 1.5
        model({name: factor * slope for name, slope in slopes(form, step).items()}).backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
    return dict(run.parts())


def main(rank: int, folder: Path) -> None:
    global ALONE, TWO
    ALONE = [distributed.new_group([other]) for other in range(4)][rank]
    meshes = {1: None, 2: DeviceMesh("cpu", [0, 1]), 4: DeviceMesh("cpu", [0, 1, 2, 3])}
    TWO = meshes[2].get_group() if rank < 2 else None
    made: dict[tuple[str, str], dict[str, Tensor]] = {}
    for form in FORMS:
        here = [ranks for ranks in meshes if rank < ranks]
        for ranks in here:
            run = Run(form, meshes[ranks]).walk(range(STEPS))
            made[form, f"{ranks}"] = dict(run.parts())
            run.save(folder / f"{form} {ranks}")
        distributed.barrier()
        for before, after in CHANGES[form]:
            if after in here:
                run = Run(form, meshes[after]).load(folder / f"{form} {before}")
                made[form, f"{before} to {after}"] = dict(run.parts())
                made[form, f"{before} to {after}, on"] = dict(run.walk(range(STEPS, STEPS + RESUMED)).parts())
        if rank == 0:
            made[form, "on"] = dict(Run(form, None).walk(range(STEPS + RESUMED)).parts())
        if rank < 2:
            made[form, "ddp"] = under_ddp(form, rank)
    if rank == 0:
        torch.save(made, folder / "made.pt")


if __name__ == "__main__":
    number, port = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    os.environ["MASTER_PORT"] = port
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=4)
    main(number, Path(sys.argv[3]))
    distributed.destroy_process_group()
