"""A causal language model as the trainer sees it: it scores completions.

Rows are prompt + completion, padded on the *right*: causal attention then needs no mask, positions
count from 0, and absolute-position models (GPT-2) are right without further care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from lightning_r1.functional import Predictions, selected_logprobs
from lightning_r1.models.adapter import has_adapter
from lightning_r1.models.adapter_state import keep_only_adapter
from lightning_r1.models.exact_buffers import ExactBuffers
from lightning_r1.models.identity import Base
from lightning_r1.models.layout import Layout
from lightning_r1.models.packed import packed
from lightning_r1.models.saving import CompiledLayers


@dataclass(frozen=True, slots=True)
class TokenScores:
    """``logprobs`` and ``entropy`` of completion tokens, ``[N, T]``, 0 where the mask is False."""

    logprobs: Tensor
    entropy: Tensor
    hits: Tensor | None = None
    """Whether the token is the most likely one, if that was asked for; False where the mask is False."""


class Policy(ExactBuffers):
    """Wraps any transformers decoder with a language-modelling head.

    Args:
        model: the transformers model; its dtype, device and attention are used as they are.
        compiled: whether its decoder layers run through ``torch.compile`` in training.
        base: what an adapted model stands on; its ``state_dict`` is the adapter alone.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False, base: Base | None = None) -> None:
        super().__init__()
        self.model = model
        self.base = base
        if self.adapted:
            keep_only_adapter(self)
        self.compiled_layers = CompiledLayers() if compiled else None
        self.make: Callable[[], nn.Module] | None = None
        """Makes it with its weights, where it was made without."""
        config = model.config.get_text_config(decoder=True)
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        scaling = getattr(config, "logits_scaling", None)  # Granite divides, Cohere multiplies
        self.scale: float = 1 / scaling if scaling else getattr(config, "logit_scale", None) or 1.0

    @property
    def adapted(self) -> bool:
        """Whether an adapter is trained, on a frozen base."""
        return has_adapter(self.model)

    def forward(
        self,
        input_ids: Tensor,
        prompt_lengths: Tensor,
        completion_mask: Tensor,
        *,
        temperature: float = 1.0,
        with_hits: bool = False,
        layout: Layout | None = None,
    ) -> TokenScores:
        """Score the completion tokens of N rows.

        Args:
            input_ids: ``[N, L]``, prompt then completion, padded on the right.
            prompt_lengths: ``[N]`` tokens.
            completion_mask: ``[N, T]`` bool; column t is the t-th token after the prompt.
            temperature: of the distribution that is scored.
            with_hits: also tell which tokens are the most likely ones.
            layout: of the rows without padding, see :mod:`lightning_r1.models.layout`; the scores are the same.

        Returns:
            Scores ``[N, T]`` in float32. The output head runs on counted tokens only.
        """
        predictions, targets = self._predict(input_ids, prompt_lengths, completion_mask, layout)
        hits = torch.zeros_like(targets, dtype=torch.bool) if with_hits else None
        logprobs, entropy = selected_logprobs(
            predictions.hidden, predictions.weight, targets, temperature=temperature, hits=hits, **predictions.options
        )
        return TokenScores(
            spread(logprobs, completion_mask),
            spread(entropy, completion_mask),
            None if hits is None else spread(hits, completion_mask),
        )

    def predict(
        self, input_ids: Tensor, prompt_lengths: Tensor, completion_mask: Tensor, layout: Layout | None = None
    ) -> tuple[Predictions, Tensor]:
        """The next-token distributions at the M counted tokens, and the tokens that came.

        Args:
            input_ids: as in :meth:`forward`.
            prompt_lengths: as in :meth:`forward`.
            completion_mask: as in :meth:`forward`.
            layout: as in :meth:`forward`.

        Returns:
            M distributions, row by row, and ``[M]`` token ids.
        """
        return self.prediction(input_ids, prompt_lengths, completion_mask, layout)()

    def prediction(self, *inputs: Any) -> Callable[[], tuple[Predictions, Tensor]]:
        """What :meth:`predict` returns, out of sight of a forward's hooks.

        Where the model is sharded this is a forward of its own. Its hooks would otherwise hang another one on the
        head's weight, which is part of the result, at every call.
        """
        result = self._predict(*inputs)
        return lambda: result

    def _predict(
        self, input_ids: Tensor, prompt_lengths: Tensor, completion_mask: Tensor, layout: Layout | None
    ) -> tuple[Predictions, Tensor]:
        columns = torch.arange(completion_mask.shape[1], device=input_ids.device)
        # the token at column c is predicted by the hidden state at c - 1
        predictors = (prompt_lengths.unsqueeze(1) + columns - 1)[completion_mask]
        rows = completion_mask.nonzero(as_tuple=True)[0]
        if layout is None:
            hidden = self.hidden_states(input_ids)[rows, predictors]
        else:
            hidden = self.packed_states(input_ids, layout)[layout.place[rows, predictors]]
        head = self.model.get_output_embeddings()
        predictions = Predictions(
            hidden,
            head.weight,
            bias=getattr(head, "bias", None),
            softcap=self.softcap,
            scale=self.scale,
        )
        return predictions, input_ids[rows, predictors + 1]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` of hidden states ``[..., H]``, scaled and capped as the architecture does."""
        logits = self.model.get_output_embeddings()(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """Last hidden states ``[N, L, H]`` of right-padded rows."""
        with self._layers():
            output = self.model.base_model(input_ids=input_ids, use_cache=False)
        return output.last_hidden_state

    def packed_states(self, input_ids: Tensor, layout: Layout) -> Tensor:
        """Last hidden states ``[S, H]`` of the packed row."""
        with packed(self.model, layout), self._layers():
            output = self.model.base_model(
                input_ids=input_ids.flatten()[layout.source].unsqueeze(0),
                position_ids=layout.positions.unsqueeze(0),
                use_cache=False,
            )
        return output.last_hidden_state.squeeze(0)

    def _layers(self) -> AbstractContextManager[None]:
        """As they run in this mode."""
        if self.compiled_layers is None or not self.training:
            return nullcontext()
        return self.compiled_layers.running(self.model)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """``[M]`` numbers at the places ``[N, T]`` that count, 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
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
