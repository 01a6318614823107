"""The reference engine: transformers' own ``generate``. Slow, simple, and what others are tested against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy, evaluating, plain_generation
from lightning_r1.rollout.engine import Finished, Progress, as_group
from lightning_r1.types import Group, Prompt, Sampling


class HFEngine:
    """Samples with ``model.generate``, one prompt's group at a time.

    Args:
        policy: sampled from directly; there is no second copy of the weights.
        codec: template and tokenizer.
    """

    exact = True
    stops_at_texts = True
    beside_training = False  # it samples from the policy itself, and draws from torch's global generator

    def __init__(self, policy: Policy, codec: Codec) -> None:
        self.policy, self.codec = policy, codec
        self.version = 0

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
        groups = []
        with evaluating(self.policy), plain_generation(self.policy.model), torch.random.fork_rng():
            # every prompt has its own length, so no row is padded on the left
            for prompt, seed in zip(prompts, seeds, strict=True):
                torch.manual_seed(seed)
                groups.append(self._one_group(prompt, sampling))
                if finished:
                    finished(len(groups) - 1, groups[-1])
                if progress:
                    progress(len(groups) * sampling.group_size, len(prompts) * sampling.group_size)
        return groups

    def _one_group(self, prompt: Prompt, sampling: Sampling) -> Group:
        device = self.policy.model.device
        input_ids = torch.tensor([prompt.token_ids] * sampling.group_size, device=device)
        how = (
            {"do_sample": False}
            if sampling.temperature == 0
            else {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": sampling.min_p or None,
            }
        )
        generate: Callable[..., Any] = self.policy.model.generate  # type: ignore[assignment]
        output = generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=sampling.budget(prompt),
            eos_token_id=list(self.codec.stop_ids),
            pad_token_id=self.codec.pad_id,
            return_dict_in_generate=True,
            output_logits=sampling.temperature == 0,
            output_scores=sampling.temperature != 0,
            synced_gpus=False,  # the weights are whole: ranks need not wait for each other at every token
            **how,
        )
        sampled = output.sequences[:, input_ids.shape[1] :]
        # scores are the logits after temperature and truncation; greedy reports temperature 1
        steps = torch.stack(output.scores or output.logits, dim=1).float().log_softmax(-1)
        logprobs = steps.gather(-1, sampled.unsqueeze(-1)).squeeze(-1)
        rows = []
        for tokens, values in zip(sampled.tolist(), logprobs.tolist(), strict=True):
            ends = [column for column, token in enumerate(tokens) if token in self.codec.stop_ids]
            length = ends[0] + 1 if ends else len(tokens)
            rows.append((tokens[:length], values[:length]))
        return as_group(prompt, self.codec, rows, self.version, sampling.stop)

    def sync_weights(self, version: int) -> None:
        """Nothing to copy: the policy itself is sampled from."""
        self.version = version

    def sleep(self) -> None:
        """Nothing is held."""

    def wake(self) -> None:
        """Nothing was given back."""
