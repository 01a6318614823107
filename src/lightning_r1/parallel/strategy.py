"""The Trainer's strategy for sharded training: which ranks hold which slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from lightning_r1.parallel.checkpoint_strategy import FolderCheckpoints
from lightning_r1.parallel.sharding import Sharding, fill, shard

Replicas = int | Literal["nodes"]


class ShardedStrategy(FolderCheckpoints, ModelParallelStrategy):
    """FSDP2 over all ranks; or within groups of them, each of which holds the whole model (hybrid).

    Args:
        replicas: groups that hold a whole model; ``nodes`` is one a node. 1 shards over all ranks.
        mixed_precision: ``bf16`` keeps float32 slices, and runs in bfloat16 with gradients reduced in float32.
        cpu_offload: slices, their gradients and the optimizer's state lie in host memory, where the optimizer steps.
        reshard_after_forward: a layer is given up after the forward and fetched again in the backward; false
            exchanges less, and holds the whole model from one to the other.
        timeout_minutes: that ranks wait for each other; one that hangs ends all of them then.
    """

    def __init__(
        self,
        *,
        replicas: Replicas = 1,
        mixed_precision: Literal["bf16"] | None = None,
        cpu_offload: bool = False,
        reshard_after_forward: bool = True,
        timeout_minutes: float = 30,
    ) -> None:
        # gloo is for what lies on the host: offloaded gradients' norms, and checkpoints on their way to the disk
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else None
        super().__init__(
            data_parallel_size=1,
            tensor_parallel_size=1,
            process_group_backend=backend,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.replicas: Replicas = replicas
        self.mixed_precision, self.cpu_offload = mixed_precision, cpu_offload
        self.reshard_after_forward = reshard_after_forward

    def setup_environment(self) -> None:
        """Start the ranks, and lay them out as ``[replicas, shards]``.

        Raises:
            ValueError: if the ranks cannot be laid out so, or there is no device to offload from.
        """
        self._setup_distributed()
        replicas = self.num_nodes if self.replicas == "nodes" else int(self.replicas)
        if self.world_size % replicas:
            raise ValueError(f"parallel.replicas={replicas}: not a divisor of the {self.world_size} ranks")
        if self.cpu_offload and self.root_device.type == "cpu":
            raise ValueError("parallel.cpu_offload=true: the ranks' device is the CPU already; set it to false")
        mesh = init_device_mesh(
            self.root_device.type, (replicas, self.world_size // replicas), mesh_dim_names=("replica", "shard")
        )
        self._device_mesh = mesh
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = mesh

    @property
    def sharding(self) -> Sharding:
        """For :func:`.shard`."""
        mesh = self.device_mesh
        return Sharding(
            mesh["shard"] if mesh["replica"].size() == 1 else mesh,
            torch.bfloat16 if self.mixed_precision == "bf16" else None,
            self.cpu_offload,
            self.reshard_after_forward,
        )

    def shard(
        self,
        model: nn.Module,
        make: Callable[[], nn.Module],
        *,
        root: nn.Module,
        layers: Sequence[nn.Module],
        exact: Sequence[nn.Module] = (),
        methods: Sequence[str] = (),
    ) -> None:
        """Shard a model on the ``meta`` device and fill it, see :func:`.shard` and :func:`.fill`. Collective."""
        shard(root, self.sharding, layers=layers, exact=exact, methods=methods)
        fill(model, make, device=torch.device("cpu") if self.cpu_offload else self.root_device)

    def model_to_device(self) -> None:
        """Slices are where they belong; Lightning's module has to know its own device."""
        assert self.lightning_module is not None
        if not self.cpu_offload:
            super().model_to_device()
            return
        _update_properties(self.lightning_module, device=self.root_device)
        for module in self.lightning_module.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Replicas exchange gradients in the last micro-batch's backward.

        Slices are reduced in every one: until then each rank would hold gradients of the whole model.
        """
        assert self.lightning_module is not None
        units = [module for module in self.lightning_module.modules() if isinstance(module, FSDPModule)]
        for unit in units:
            unit.set_requires_all_reduce(False, recurse=False)
        yield
        for unit in units:
            unit.set_requires_all_reduce(True, recurse=False)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank has data of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}
