"""The in-process engine made for groups: no second copy of the weights, nothing computed twice.

Each prompt is prefilled once and its keys and values are copied to the G rows of its group; the
cache is allocated once; finished rows leave the batch; log-probabilities are captured as tokens
are drawn. Any transformers decoder with a key-value cache works.

Prompts of different length are padded on the left, with a mask and positions that start at each
prompt's first token, so that every row's next token has the same column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_r1.models.attention import decoding_attention
from lightning_r1.models.cache import RolloutCache, cache_layers
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.rollout.engine import Finished, Progress, as_group, uniform_draws
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Group, Prompt, Sampling

# Rows are dropped when this share of the batch has finished: each drop copies the cache of the rows
# that stay, and a share (not a number) bounds all copies of a rollout by a geometric series.
_COMPACT_AT = 0.25


class GroupEngine:
    """Samples groups with a shared prefill and a shrinking batch.

    Args:
        policy: sampled from directly.
        codec: template and tokenizer.
        max_rows: rows decoded together; a larger rollout is cut into batches of whole groups.

    Raises:
        ValueError: if the architecture keeps a state that is not keys and values.
    """

    exact = True
    beside_training = False  # it samples from the policy itself
    can_have_own_weights = True

    def __init__(self, policy: Policy, codec: Codec, *, max_rows: int = 512) -> None:
        self.policy, self.codec, self.max_rows = policy, codec, max_rows
        self.version = 0
        self.layers = cache_layers(policy.model)

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
        groups: dict[int, Group] = {}
        size = sampling.group_size
        # prompts of like length together: less padding
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].token_ids))
        per_batch = max(1, self.max_rows // size)
        with evaluating(self.policy), decoding_attention(self.policy.model):
            for start in range(0, len(order), per_batch):
                batch = order[start : start + per_batch]
                rows = self._decode([prompts[index] for index in batch], [seeds[index] for index in batch], sampling)
                for place, index in enumerate(batch):
                    of_prompt = rows[place * size : (place + 1) * size]
                    groups[index] = as_group(prompts[index], self.codec, of_prompt, self.version)
                    if finished:
                        finished(index, groups[index])
                if progress:
                    progress(len(groups) * size, len(prompts) * size)
        return [groups[index] for index in range(len(prompts))]

    def _decode(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling
    ) -> list[tuple[list[int], list[float]]]:
        """Token ids and log-probabilities of B * G completions, a prompt's group together."""
        device, steps = self.policy.model.device, sampling.max_new_tokens
        input_ids, mask = _left_pad(prompts, self.codec.pad_id, room=steps, device=device)
        width, total = input_ids.shape[1], len(prompts) * sampling.group_size
        cache = RolloutCache(self.layers, rows=total, columns=width + steps)
        uniforms = uniform_draws(seeds, sampling.group_size, steps).to(device)
        stop_ids = torch.tensor(self.codec.stop_ids, device=device)

        logits = self._next_logits(input_ids, cache, mask)
        cache.repeat_prompts(sampling.group_size)
        logits = logits.repeat_interleave(sampling.group_size, dim=0)
        mask = mask.repeat_interleave(sampling.group_size, dim=0) if mask is not None else None

        tokens = torch.full((total, steps), self.codec.pad_id, device=device)
        logprobs = torch.zeros(total, steps, device=device, dtype=torch.float32)  # whatever the model's own is
        live = torch.arange(total, device=device)  # the completion that each row of the batch writes
        running = torch.ones(total, dtype=torch.bool, device=device)
        for step in range(steps):
            drawn, values = sample_tokens(logits, uniforms[live, step], sampling)
            tokens[live, step], logprobs[live, step] = drawn, values
            running &= ~torch.isin(drawn, stop_ids)
            remaining = int(running.sum())
            if remaining == 0 or step + 1 == steps:
                break
            if remaining <= (1 - _COMPACT_AT) * len(running):
                keep = running.nonzero().squeeze(1)
                cache.keep_rows(keep)
                live, running, drawn = live[keep], running[keep], drawn[keep]
                mask = mask[keep] if mask is not None else None
            logits = self._next_logits(drawn.unsqueeze(1), cache, mask)
        return _until_stop(tokens[:, : step + 1], logprobs, stop_ids)

    def _next_logits(self, input_ids: Tensor, cache: RolloutCache, mask: Tensor | None) -> Tensor:
        """Feed ``[n, new]`` tokens; logits ``[n, V]`` of the token after them."""
        seen = cache.get_seq_length()
        positions = None
        if mask is not None:
            mask = mask[:, : seen + input_ids.shape[1]]
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, seen:]
        output = self.policy.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def sync_weights(self, version: int) -> None:
        """Nothing to copy: the policy itself is sampled from."""
        self.version = version

    def sleep(self) -> None:
        """The cache is dropped at the end of every call."""

    def wake(self) -> None:
        """Nothing was given back."""


def _left_pad(
    prompts: Sequence[Prompt], pad_id: int, *, room: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Token ids ``[B, P]`` and a mask ``[B, P + room]``, or None where all prompts are equally long."""
    lengths = [len(prompt.token_ids) for prompt in prompts]
    width = max(lengths)
    rows = [[pad_id] * (width - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in prompts]
    input_ids = torch.tensor(rows, device=device)
    if min(lengths) == width:
        return input_ids, None
    columns = torch.arange(width + room, device=device)
    return input_ids, columns >= width - torch.tensor(lengths, device=device).unsqueeze(1)


def _until_stop(tokens: Tensor, logprobs: Tensor, stop_ids: Tensor) -> list[tuple[list[int], list[float]]]:
    """Cut each row ``[steps]`` behind its first stop token."""
    stops = torch.isin(tokens, stop_ids)
    first = torch.where(stops.any(1), stops.int().argmax(1) + 1, tokens.shape[1])
    return [
        (row[:length], values[:length])
        for row, values, length in zip(tokens.tolist(), logprobs.tolist(), first.tolist(), strict=True)
    ]
