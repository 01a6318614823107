"""One rank that gives a sharded model its weights, and tells what that took: ``python -m helpers.loading FOLDER``.

The folder holds ``big``, a model of 100 MB, and gets ``rank-<rank>.json``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from helpers.models import tiny_model
from lightning_r1.models.live_weights import whole_weights
from lightning_r1.models.load import hollow_model, load_model
from lightning_r1.models.policy import Policy
from lightning_r1.models.units import units_of
from lightning_r1.parallel.sharding import Sharding, fill, shard, whole

BIG = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "tie_word_embeddings": True}
CPU = torch.device("cpu")


def write_big(folder: Path) -> int:
    """A model large enough to be seen in a process's memory; returns its bytes."""
    model = tiny_model("llama", **BIG)
    model.save_pretrained(folder)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def sharded(path: Path) -> Policy:
    """Its layers and the rest, in slices without numbers."""
    policy = Policy(hollow_model(path))
    units = units_of(policy)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    shard(units.root, Sharding(mesh), layers=units.layers, exact=units.exact, methods=units.methods)
    return policy


def refused(policy: Policy, make: Callable[[], nn.Module]) -> str:
    """What this rank is told."""
    try:
        fill(policy, make, device=CPU)
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def missing() -> nn.Module:
    raise OSError("no such file")


def peak() -> int:
    """Bytes of this process at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _main(folder: Path) -> None:
    rank, ranks, path = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"]), folder / "big"
    distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    facts: dict[str, Any] = {}
    policy = sharded(path)
    before = peak()
    fill(policy, lambda: Policy(load_model(path)), device=CPU)
    facts["peak"] = peak() - before
    model = policy.model
    gathered = whole_weights(model, keep=rank == 0)
    if rank == 0:
        stored = load_file(path / "model.safetensors")
        facts["equal"] = all(torch.equal(gathered[name], tensor) for name, tensor in stored.items())
        facts["names"] = sorted(gathered) == sorted([*stored, "lm_head.weight"])
    else:
        facts["given"] = len(gathered)
    facts["sliced"] = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    facts["held"] = sum(parameter.to_local().numel() * 4 for parameter in model.parameters())
    facts["tied"] = model.lm_head.weight is model.model.embed_tokens.weight
    own = load_model(path)
    facts["buffers"] = [torch.equal(held, real) for held, real in zip(model.buffers(), own.buffers(), strict=True)]
    with whole(policy), torch.no_grad():
        ids = torch.arange(7).unsqueeze(0)
        facts["tied while whole"] = model.lm_head.weight is model.model.embed_tokens.weight
        facts["no collective"] = rank == 1 or torch.equal(model(ids).logits, own(ids).logits)  # rank 1 calls nothing
    facts["sliced again"] = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    other = Policy(tiny_model("llama"))
    facts["told"] = [refused(sharded(path), missing), refused(sharded(path), lambda: other)]
    (folder / f"rank-{rank}.json").write_text(json.dumps(facts))
    distributed.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
