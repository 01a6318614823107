"""How fast a device, its links and the programs on it are taken to be: all that estimates of time assume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Devices of a kind, some a node, and the shares of their data sheets that are reached."""

    gpu: str
    """Its name."""
    gpus: int
    gpus_per_node: int
    tflops: float
    """Dense, in the type that is trained in."""
    bandwidth_gb_s: float
    """Of a device's memory."""
    link_gb_s: float
    """Between the devices of a node, one way."""
    network_gb_s: float
    """Of a node to the others, one way."""
    host_gb_s: float
    """Of a device to the host's memory, one way."""
    mfu: float
    """The share of ``tflops`` that an update reaches."""
    decoding: float
    """The share of ``bandwidth_gb_s`` that a rollout reaches."""
    links: float
    """The share of links and network that an exchange reaches."""
    overlap: float
    """The share of an exchange that is hidden behind arithmetic, where there is as much of it."""
    rewards_per_s: float
    """Answers graded in a second."""

    @property
    def flop_per_s(self) -> float:
        """Of an update."""
        return self.tflops * 1e12 * self.mfu

    @property
    def bytes_per_s(self) -> float:
        """That decoding reads."""
        return self.bandwidth_gb_s * 1e9 * self.decoding

    @property
    def host_bytes_per_s(self) -> float:
        """To or from the host."""
        return self.host_gb_s * 1e9 * self.links

    def exchange_bytes_per_s(self, ranks: int) -> float:
        """That each rank gets in a collective of so many: the devices of a node share its network among them."""
        slowest = self.link_gb_s if ranks <= self.gpus_per_node else min(self.link_gb_s, self.network_gb_s)
        return slowest * 1e9 * self.links

    def told(self) -> str:
        """What is assumed, in words.

        >>> Cluster(gpu="h100", gpus=8, gpus_per_node=8, tflops=989, bandwidth_gb_s=3350, link_gb_s=450,
        ...     network_gb_s=400, host_gb_s=55, mfu=.4, decoding=.4, links=.7, overlap=.8, rewards_per_s=200).told()
        '8 x h100: 989 TFLOPS at 40% MFU, memory 3350 GB/s at 40%, links 450 and network 400 GB/s at 70%, 80% of it \
hidden, 200 answers graded a second'
        """
        return (
            f"{self.gpus} x {self.gpu}: {self.tflops:g} TFLOPS at {self.mfu:.0%} MFU, memory {self.bandwidth_gb_s:g} "
            f"GB/s at {self.decoding:.0%}, links {self.link_gb_s:g} and network {self.network_gb_s:g} GB/s at "
            f"{self.links:.0%}, {self.overlap:.0%} of it hidden, {self.rewards_per_s:g} answers graded a second"
        )


def cluster_of(options: Mapping[str, Any], gpus: int) -> Cluster | None:
    """From ``doctor`` in a config; None where speeds are not said.

    Links that are not said are as fast as memory, so that they cost next to nothing.

    Args:
        options: of ``conf/doctor.yaml`` and a file of ``conf/gpu``.
        gpus: of the run.
    """
    if not (options["tflops"] and options["bandwidth_gb_s"]):
        return None
    names = {field.name for field in fields(Cluster)} - {"gpus"}
    said = {name: options[name] for name in names}
    for link in ("link_gb_s", "network_gb_s", "host_gb_s"):
        said[link] = said[link] or options["bandwidth_gb_s"]
    return Cluster(gpus=gpus, **said)
