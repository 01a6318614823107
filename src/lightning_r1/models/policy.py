"""A causal language model as the trainer sees it: it scores completions.

Rows are prompt + completion, padded on the *right*: causal attention then needs no mask, positions
count from 0, and absolute-position models (GPT-2) are right without further care.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from lightning_r1.functional import selected_logprobs


@dataclass(frozen=True, slots=True)
class TokenScores:
    """``logprobs`` and ``entropy`` of completion tokens, ``[N, T]``, 0 where the mask is False."""

    logprobs: Tensor
    entropy: Tensor


class Policy(nn.Module):
    """Wraps any transformers decoder with a language-modelling head.

    Args:
        model: the transformers model; its dtype, device and attention are used as they are.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        scaling = getattr(config, "logits_scaling", None)  # Granite divides, Cohere multiplies
        self.scale: float = 1 / scaling if scaling else getattr(config, "logit_scale", None) or 1.0

    def forward(
        self, input_ids: Tensor, prompt_lengths: Tensor, completion_mask: Tensor, *, temperature: float = 1.0
    ) -> TokenScores:
        """Score the completion tokens of N rows.

        Args:
            input_ids: ``[N, L]``, prompt then completion, padded on the right.
            prompt_lengths: ``[N]`` tokens.
            completion_mask: ``[N, T]`` bool; column t is the t-th token after the prompt.
            temperature: of the distribution that is scored.

        Returns:
            Scores ``[N, T]`` in float32. The output head runs on counted tokens only.
        """
        hidden = self.hidden_states(input_ids)
        columns = torch.arange(completion_mask.shape[1], device=input_ids.device)
        # the token at column c is predicted by the hidden state at c - 1
        predictors = (prompt_lengths.unsqueeze(1) + columns - 1)[completion_mask]
        rows = completion_mask.nonzero(as_tuple=True)[0]
        head = self.model.get_output_embeddings()
        logprobs, entropy = selected_logprobs(
            hidden[rows, predictors],
            head.weight,
            input_ids[rows, predictors + 1],
            bias=getattr(head, "bias", None),
            temperature=temperature,
            softcap=self.softcap,
            scale=self.scale,
        )
        blank = logprobs.new_zeros(completion_mask.shape)
        return TokenScores(
            logprobs=blank.masked_scatter(completion_mask, logprobs),
            entropy=blank.masked_scatter(completion_mask, entropy),
        )

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """Last hidden states ``[N, L, H]`` of right-padded rows."""
        output = self.model.base_model(input_ids=input_ids, use_cache=False)
        return output.last_hidden_state


@contextmanager
def evaluating(policy: Policy) -> Iterator[None]:
    """Without dropout and without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Without the generation habits that came with the weights (repetition penalty, banned tokens, ...).

    ``generate`` merges them into what it is asked for, and would sample from another distribution than
    the one that is scored.
    """
    habits, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = habits
