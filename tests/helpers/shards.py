"""Ranks that write and read the checkpoints of a small sharded model; each of them is a process.

A model in bfloat16 whose rows no number of ranks divides, on masters; and an optimizer with other states than torch's:
codes of a byte, one maximum a row, and a count that is no tensor.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import adamw8bit
from lightning_r1.parallel.checkpoint_folder import Contents, FolderReader, as_bytes, write_folder
from lightning_r1.parallel.checkpoint_state import named_optimizer, once, read_model, read_optimizer
from lightning_r1.parallel.collectives import rank, world_size


class Net(nn.Module):
    """Two layers, of which the second is tied to nothing, and an embedding that is the head as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.up, self.down = nn.Linear(6, 7), nn.Linear(7, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.down(torch.relu(self.up(self.embed(ids)))) * self.scale)


class RowCodes(torch.optim.Optimizer):
    """Keeps the sign of each gradient in a byte, the largest of each row, and how often it stepped."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                state["codes"] = (gradient > 0).to(torch.uint8)
                state["maxima"] = gradient.abs().reshape(len(gradient), -1).amax(1, keepdim=True)
                state["count"] = state.get("count", 0) + 1
                parameter.add_(gradient, alpha=-group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, state in state_dict["state"].items():
            self.state[parameters[index]] = dict(state)


Kind = str
OPTIMIZERS = {
    "masters": lambda net: adamw(net.named_parameters(), lr=0.01, weight_decay=0.1),
    "codes": lambda net: RowCodes(net.parameters()),
    "adamw8bit": lambda net: adamw8bit(net.named_parameters(), lr=0.01, min_8bit_size=0),
}


def made(kind: Kind, *, sharded: bool) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net().to(torch.bfloat16 if kind != "codes" else torch.float32)
    if sharded:
        fully_shard(net, mesh=init_device_mesh("cpu", (world_size(),)))
    return net, OPTIMIZERS[kind](net)


def trained(kind: Kind, *, sharded: bool, steps: int = 2) -> tuple[Net, torch.optim.Optimizer]:
    net, optimizer = made(kind, sharded=sharded)
    for step in range(steps):
        ids = torch.arange(8).roll(step)
        nn.functional.cross_entropy(net(ids).float(), ids + 1).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, optimizer


def tensors_of(net: Net, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint holds, by name, and the optimizer's other state."""
    named, said = named_optimizer(optimizer, net, 0)
    return {f"model.{name}": tensor for name, tensor in once(net.state_dict()).items()} | named, said


def complete(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()
        for name, tensor in tensors.items()
    }


def write(folder: Path, kind: Kind, *, sharded: bool = True) -> dict[str, Tensor]:
    """Train, write a checkpoint, and tell what it should hold."""
    net, optimizer = trained(kind, sharded=sharded)
    tensors, said = tensors_of(net, optimizer)
    common = as_bytes({"global_step": 2, "optimizer_states": [said], "lightning_r1": {"world_size": world_size()}})
    write_folder(Contents(2, tensors, common, {"rank": rank()}), folder, dist.group.WORLD if sharded else None)
    return complete(tensors)


def read(folder: Path, kind: Kind, *, sharded: bool = True) -> tuple[dict[str, Tensor], list[int], Any]:
    """What a new model and its optimizer hold behind loading; whose own states were read; the other state."""
    net, optimizer = made(kind, sharded=sharded)
    reader = FolderReader(folder, dist.group.WORLD if sharded else None)
    common = reader.common()
    read_model(net, reader, strict=True)
    read_optimizer(optimizer, net, 0, common["optimizer_states"][0], reader)
    tensors, said = tensors_of(net, optimizer)
    own = reader.own(common["lightning_r1"]["world_size"])
    assert own == {number: {"rank": number} for number in own}
    return complete(tensors), sorted(own), said


def on_processes(count: int, work: Callable[[], Any], folder: Path) -> list[Any]:
    """``work()`` of so many ranks, each a process of its own; returns what each made, by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.shards"])
    folder.mkdir(parents=True, exist_ok=True)
    processes = [context.Process(target=_rank, args=(work, number, count, folder)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    files = [folder / f"made-{number}.pt" for number in range(count)]
    said = [file.read_text() for number in range(count) if (file := folder / f"error-{number}.txt").exists()]
    assert [process.exitcode for process in processes] == [0] * count, "\n".join(said)
    return [torch.load(file, weights_only=False) for file in files]


def _rank(work: Callable[[], Any], number: int, count: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=count)
        torch.save(work(), folder / f"made-{number}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (folder / f"error-{number}.txt").write_text(traceback.format_exc())
        raise


def culprit() -> str:
    """What a step names whose gradient is infinite in the last rank's slice of one parameter."""
    from lightning_r1.modules.phase import Phase

    net, optimizer = made("codes", sharded=True)
    for name, parameter in net.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        if name == "down.weight" and rank() == world_size() - 1:
            parameter.grad.to_local()[-1, -1] = torch.inf
    step: Any = SimpleNamespace(policy=net)
    return Phase._not_finite(step, torch.tensor(0.0), optimizer)


def written_files(folder: Path, work: Callable[[], Any]) -> list[str]:
    """Names of the files below a folder that this process opens for writing."""
    names: list[str] = []

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            name, flags = os.fspath(arguments[0]), arguments[2] or 0
            if name.startswith(str(folder)) and flags & (os.O_WRONLY | os.O_RDWR):
                names.append(name)

    sys.addaudithook(hear)  # for the rest of the process
    work()
    return names


def write_and_listen(folder: Path) -> list[str]:
    """Files that this rank opens while a checkpoint is written."""
    return written_files(folder, partial(write, folder / "step-0000002", "masters"))
