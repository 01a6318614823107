"""An engine in this process that samples from weights of its own, so that it can go on while the policy trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from lightning_r1.models.merging import as_whole
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.engine import AroundEngine, Finished, Progress, RolloutEngine
from lightning_r1.types import Group, Prompt, Sampling


class BesideEngine(AroundEngine):
    """Any engine that samples from a :class:`.Policy` in this process, over a copy of it.

    The copy takes the policy's weights when :meth:`sync_weights` is called and keeps them until the next
    time. It is a second model in memory, in the policy's own dtype.

    Args:
        policy: the one that is trained.
        make: gives an engine that samples from the policy it is given.

    Raises:
        ValueError: if that engine draws from torch's own random numbers, which the update draws from as well.
    """

    beside_training = True
    can_have_own_weights = True
    exact = False
    """The policy has moved on when its completions are learned from."""
    parity_tolerance = None
    """Its weights are copied in this process: there is no way on which they could be lost."""

    def __init__(self, policy: Policy, make: Callable[[Policy], RolloutEngine]) -> None:
        self.policy = policy
        # still with requires_grad: torch picks its products by it, and the bits should be those of the policy itself
        self.copy = copy.deepcopy(policy).eval()
        self.inner = make(self.copy)
        if not getattr(self.inner, "can_have_own_weights", False):
            raise ValueError(f"rollout: a {type(self.inner).__name__} cannot sample beside the update")

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """See :class:`~lightning_r1.rollout.engine.RolloutEngine`."""
        return self.inner.generate(prompts, sampling, seeds=seeds, progress=progress, finished=finished)

    def sync_weights(self, version: int) -> None:
        """Copy the policy's weights."""
        copy_weights(self.policy, self.copy)
        super().sync_weights(version)


@torch.no_grad()
def copy_weights(source: Policy, target: Policy) -> None:
    """Parameters and buffers of one model into another of the same architecture, wherever they lie.

    A trainer moves, converts and shards its own model when it starts; the other one follows, tensor by tensor. Where
    the source is sharded this is collective.
    """
    if target.model.device.type == "meta":  # built without weights, as its source was
        target.to_empty(device="cpu")
        target.model.tie_weights()
    own = dict(target.named_parameters()) | dict(target.named_buffers())
    for name, tensor in (*source.named_parameters(), *source.named_buffers()):
        held = own[name]
        tensor = as_whole(tensor)
        if (held.dtype, held.device, held.shape) != (tensor.dtype, tensor.device, tensor.shape):
            held.data = torch.empty_like(tensor)
        held.data.copy_(tensor)
