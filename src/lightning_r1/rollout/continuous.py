"""transformers' continuous batching on the policy itself: no other program, no second copy of the weights.

Made for CUDA with flash attention, where it decodes from a paged cache under CUDA graphs; it runs on a CPU as well.

*Randomness*: transformers has one stream of random numbers for a whole batch, so that a completion depends on its
neighbours and on when they end, unlike in :mod:`.group`. A call made again with the same prompts and seeds is
identical where batches are cut alike: on a CPU always, on a GPU if ``max_memory_percent`` finds as many pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_r1.models.codec import Codec
from lightning_r1.models.continuous import Row, generate_continuously, without_own_seed
from lightning_r1.models.policy import Policy, evaluating, plain_generation
from lightning_r1.rollout.engine import EngineError, Finished, Progress, as_group, seed_for
from lightning_r1.types import Group, Prompt, Sampling

_CPU = {"page_size": 16, "num_blocks": 4096, "max_batch_tokens": 2048}
"""On a GPU transformers measures the free memory instead."""


class ContinuousEngine:
    """Samples with transformers' continuous batching.

    Args:
        policy: sampled from directly.
        codec: template and tokenizer.
        max_memory_percent: share of the free GPU memory that the cache takes while it samples; null is transformers'
            own choice.
        page_size: tokens in a page of the cache; null is transformers' own choice.
        flash: switch to flash attention while sampling, if it is installed.
        timeout_s: within which the next completion has to end.
    """

    exact = True
    beside_training = False  # it samples from the policy itself

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        *,
        max_memory_percent: float | None = None,
        page_size: int | None = None,
        flash: bool = True,
        timeout_s: float = 600.0,
    ) -> None:
        self.version = 0
        self.policy, self.codec, self.timeout_s = policy, codec, timeout_s
        said = {"max_memory_percent": max_memory_percent, "page_size": page_size}
        self.options = {name: value for name, value in said.items() if value is not None}
        self.flash = flash

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
        if sampling.min_p:
            raise EngineError(
                f"sampling.min_p={sampling.min_p}: transformers' continuous batching has none; set it to 0.0, or "
                "choose rollout=group"
            )
        size, done = sampling.group_size, 0
        rows: dict[int, Row] = {}
        groups: dict[int, Group] = {}

        def whole(place: int, row: Row) -> None:
            nonlocal done
            rows[place], done, index = row, done + 1, place // size
            of_group = range(index * size, (index + 1) * size)
            if all(one in rows for one in of_group):
                groups[index] = as_group(prompts[index], self.codec, [rows.pop(one) for one in of_group], self.version)
                if finished:
                    finished(index, groups[index])
            if progress:
                progress(done, len(prompts) * size)

        def sample() -> None:
            generate_continuously(
                self.policy.model,
                [prompt.token_ids for prompt in prompts for _ in range(size)],
                sampling,
                budgets=[sampling.budget(prompt) for prompt in prompts for _ in range(size)],
                seed=seed_for("continuous", *seeds),
                stop_ids=self.codec.stop_ids,
                pad_id=self.codec.pad_id,
                timeout_s=self.timeout_s,
                options={**(_CPU if self._on_cpu else {}), "auto_switch_to_flash": self.flash, **self.options},
                whole=whole,
            )

        try:
            with evaluating(self.policy), plain_generation(self.policy.model):
                without_own_seed(sample)
        except (TimeoutError, RuntimeError, ValueError) as error:
            told = " ".join(str(error).split())
            raise EngineError(f"rollout=continuous: {type(error).__name__}: {told}; choose rollout=group") from error
        return [groups[index] for index in range(len(prompts))]

    @property
    def _on_cpu(self) -> bool:
        return self.policy.model.device.type == "cpu"

    def sync_weights(self, version: int) -> None:
        """Nothing to copy: the policy itself is sampled from."""
        self.version = version

    def sleep(self) -> None:
        """The pages are given back at the end of every call."""

    def wake(self) -> None:
        """Nothing was given back."""
