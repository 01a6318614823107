"""vLLM's own ways to move weights between GPUs: CUDA IPC on one device, NCCL between machines. Not for CPU.

vLLM's transfer engines drive a whole update (start, transfer, finish) through a client with four methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_r1.models.live_weights import live_weights


class Client(Protocol):
    """What vLLM's trainer side calls on the serving side."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Meet."""
        ...

    def start_weight_update(self) -> None:
        """Begin."""
        ...

    def update_weights(self, update_info: Any) -> None:
        """Receive; returns when all has come."""
        ...

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End."""
        ...


def over_ipc(model: nn.Module, dtype: torch.dtype, client: Client) -> Any:
    """Between two programs on one GPU: the serving side reads the trainer's memory. Has ``send_weights``."""
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    # every rank has an engine of its own and is the sender to it; handles are told apart by their GPU
    told = IPCTrainerInitInfo(rank=0, packed=True)
    return WeightTransferTrainerFactory.trainer_init(told, client=client, source=_source(model, dtype))


def over_nccl(
    model: nn.Module, dtype: torch.dtype, client: Client, *, rank: int, address: str, port: int, servers: int
) -> Any:
    """By broadcast from rank 0 to the ``servers`` processes that serve. Has ``send_weights``, called on every rank."""
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    told = NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=servers + 1, rank=rank)
    return WeightTransferTrainerFactory.trainer_init(told, client=client, source=_source(model, dtype))


def _source(model: nn.Module, dtype: torch.dtype) -> Any:
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class Live(WeightSource):
        """The live weights, anew at each pass."""

        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in live_weights(model, dtype)]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return live_weights(model, dtype)

    return Live()
