"""Several vLLM servers as one engine: prompts are dealt out to them, every one gets the policy's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.parallel.collectives import rank
from lightning_r1.rollout.vllm_request import Row
from lightning_r1.rollout.vllm_server import VLLMServerEngine
from lightning_r1.types import Prompt, Sampling


class VLLMServersEngine(VLLMServerEngine):
    """Samples with vLLM servers that serve the same model. A prompt's whole group comes from one of them.

    Args:
        policy: see :class:`.VLLMServerEngine`.
        codec: see :class:`.VLLMServerEngine`.
        base_urls: of the servers, without ``/v1``.
        options: of each, see :class:`.VLLMServerEngine`; ``at_once`` is of each as well.

    Raises:
        ValueError: if there is no address.
    """

    def __init__(
        self, policy: Policy, codec: Codec, *, base_urls: Sequence[str], at_once: int = 64, **options: Any
    ) -> None:
        if not base_urls:
            raise ValueError("rollout.base_urls=[]: expected at least one address, like http://host:8000")
        first, *others = base_urls
        super().__init__(policy, codec, base_url=first, at_once=at_once * len(base_urls), **options)
        self.others = [VLLMServerEngine(policy, codec, base_url=url, **options) for url in others]

    def sampler(self, index: int) -> Callable[[Prompt, Sampling, int], list[Row]]:
        """Ranks begin with different servers: a rank may have fewer prompts than there are servers."""
        return [self, *self.others][(index + rank()) % (1 + len(self.others))]._sample

    def sync_weights(self, version: int) -> None:
        """Send the policy's weights to one after the other."""
        super().sync_weights(version)
        for other in self.others:
            other.sync_weights(version)

    def wake(self) -> None:
        """Wait until all are up."""
        super().wake()
        for other in self.others:
            other.wake()
