"""What an optimizer holds and takes: bytes of its state, peak memory and seconds of a step, in 32 and in 8 bits.

Bytes are counted on the tensors that are there. Every system steps in a fresh process, on random weights of a real
shape with random gradients.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_r1.benchmarks.peak import forget_peak, peak_gib, used_gib
from lightning_r1.benchmarks.result import here
from lightning_r1.benchmarks.shapes import model_of
from lightning_r1.callbacks.console import console
from lightning_r1.models.load import quiet_transformers
from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import adamw8bit

SYSTEMS: dict[str, tuple[torch.dtype, Callable[..., Optimizer]]] = {
    "32 bits": (torch.float32, adamw),
    "8 bits": (torch.float32, adamw8bit),
    "8 bits, embeddings too": (torch.float32, partial(adamw8bit, embeddings=8)),
    "32 bits, bf16 + masters": (torch.bfloat16, adamw),
    "8 bits, bf16 + masters": (torch.bfloat16, adamw8bit),
}


@dataclass(frozen=True)
class Held:
    """What a process measured."""

    parameters: int
    state_bytes: int
    """Averages and, where there are, masters."""
    peak_gib: float
    """Above weights and gradients."""
    seconds: float
    """Median of a step."""


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the table.

    Args:
        config: ``conf/benchmark/optimizer.yaml``, resolved.

    Returns:
        By shape and system what was measured.

    Raises:
        ValueError: for a system that is none.
    """
    if unknown := [system for system in config["systems"] if system not in SYSTEMS]:
        raise ValueError(f"benchmark.systems={unknown[0]!r}: expected of {', '.join(SYSTEMS)}")
    where = here()
    found: dict[str, dict[str, Held]] = {}
    for shape, layers in config["shapes"].items():
        work = (shape, layers, config["steps"], config["threads"])
        found[shape] = {}
        for system in config["systems"]:
            held = found[shape][system] = measure(system, *work)
            console.print(f"{shape}  {system:>24}  {held.state_bytes / 2**30:.2f} GiB  {held.seconds:.2f} s a step")
        tell(shape, layers, found[shape], where["line"])
    return {
        "where": where,
        "shapes": {
            shape: {system: asdict(held) for system, held in systems.items()} for shape, systems in found.items()
        },
    }


def measure(system: str, *work: Any) -> Held:
    """:func:`turn` in a process of its own: peak memory is a process's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(turn, system, *work).result()


def turn(system: str, shape: str, layers: int | None, steps: int, threads: int | None) -> Held:
    """A turn in this process.

    Args:
        system: of :data:`SYSTEMS`.
        shape: of the model.
        layers: in place of the shape's.
        steps: measured, after one to warm up.
        threads: of torch; None leaves its choice.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    quiet_transformers()
    dtype, factory = SYSTEMS[system]
    model = model_of(shape, dtype=dtype, **({} if layers is None else {"num_hidden_layers": layers}))
    device = next(model.parameters()).device.type
    gradients = [1e-3 * torch.randn_like(parameter) for parameter in model.parameters()]
    gc.collect()
    forget_peak(device)
    start = used_gib(device)
    optimizer = factory(model.named_parameters(), lr=1e-6)
    seconds = [timed(optimizer, model.parameters(), gradients) for _ in range(steps + 1)]
    return Held(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        state_bytes=bytes_of(optimizer),
        peak_gib=peak_gib(device) - start,
        seconds=statistics.median(seconds[1:]),
    )


def timed(optimizer: Optimizer, parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor]) -> float:
    """Seconds of a step with these gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    _wait()
    started = time.perf_counter()
    optimizer.step()
    _wait()
    seconds = time.perf_counter() - started
    optimizer.zero_grad()
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bytes_of(optimizer: Optimizer) -> int:
    """Of the state as a checkpoint holds it, the counts of steps left out."""
    states = optimizer.state_dict()["state"].values()
    return sum(value.nbytes for state in states for name, value in state.items() if name != "step")


def tell(shape: str, layers: int | None, found: Mapping[str, Held], line: str) -> None:
    """The table."""
    parameters = next(iter(found.values())).parameters
    cut = "" if layers is None else f", {layers} layers"
    table = Table(
        title=f"optimizer of {shape}{cut}, {parameters / 1e6:.0f} million parameters",
        title_justify="left",
        caption=line,
    )
    for column in ("", "state GiB", "bytes a parameter", "of the first", "peak GiB above", "s a step"):
        table.add_column(column, justify="left" if not column else "right")
    first = next(iter(found.values())).state_bytes
    for system, held in found.items():
        table.add_row(
            system, f"{held.state_bytes / 2**30:.2f}", f"{held.state_bytes / parameters:.2f}",
            f"{held.state_bytes / first:.2f}", f"{held.peak_gib:.2f}", f"{held.seconds:.2f}",
        )  # fmt: skip
    console.print(table)
