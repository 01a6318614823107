"""A chat model in this process that answers single messages, greedily: a judge on the rollout's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_r1.models.load import load_model
from lightning_r1.models.policy import evaluating, plain_generation
from lightning_r1.models.token_budget import split_by_tokens
from lightning_r1.models.tokenizer import load_tokenizer
from lightning_r1.models.turns import reserved_ids

_MESSAGE = "\ue000"  # private use: no template holds it, and none changes it


class LocalChat:
    """Answers messages, each alone, with the model's own chat template.

    A message's text is tokenised apart from the template, without special tokens: what stands in it cannot end its
    turn.

    Args:
        path: a folder or hub id of a chat model.
        dtype: as in :func:`.load_model`.
        attention: as in :func:`.load_model`.
        max_new_tokens: of an answer.
        micro_batch_tokens: of one batch, answers and padding included.

    Raises:
        ValueError: for a model without a chat template, or numbers out of their range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str = "float32",
        attention: str = "sdpa",
        max_new_tokens: int = 512,
        micro_batch_tokens: int = 65536,
    ) -> None:
        for name, value in {"max_new_tokens": max_new_tokens, "micro_batch_tokens": micro_batch_tokens}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected >= 1")
        self.path, self.max_new_tokens, self.micro_batch_tokens = str(path), max_new_tokens, micro_batch_tokens
        self.tokenizer = load_tokenizer(path)
        self.before, self.after = self._frame()
        self._reserved = reserved_ids(self.tokenizer, (*self.before, *self.after))
        self.model = load_model(path, dtype=dtype, attention=attention)
        self.model.requires_grad_(False)
        self.context: int | None = getattr(
            self.model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )
        self.stop_ids = self._stop_ids()

    def to(self, device: Any) -> None:
        """Move the model."""
        self.model.to(device)

    def row(self, message: str) -> list[int]:
        """Token ids of a user's turn and of the opening of the assistant's."""
        ids = self.tokenizer.encode(message, add_special_tokens=False, split_special_tokens=True)
        return [*self.before, *(token for token in ids if token not in self._reserved), *self.after]

    def answer(self, messages: Sequence[str]) -> list[str | None]:
        """One answer each, in order; None where message and answer would not fit into the model's context."""
        rows = [self.row(message) for message in messages]
        fits = [
            place
            for place, row in enumerate(rows)
            if self.context is None or len(row) + self.max_new_tokens <= self.context
        ]
        answers: list[str | None] = [None] * len(rows)
        lengths = [len(rows[place]) + self.max_new_tokens for place in fits]
        with evaluating(self.model), plain_generation(self.model):
            for part in split_by_tokens(lengths, self.micro_batch_tokens):
                places = [fits[index] for index in part]
                for place, text in zip(places, self._generate([rows[place] for place in places]), strict=True):
                    answers[place] = text
        return answers

    def _generate(self, rows: Sequence[Sequence[int]]) -> list[str]:
        pad = int(self.tokenizer.pad_token_id)
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), pad)
        attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
        for place, row in enumerate(rows):  # on the left: all rows end where their answers begin
            input_ids[place, width - len(row) :] = torch.tensor(row)
            attention_mask[place, width - len(row) :] = 1
        generate: Callable[..., Tensor] = self.model.generate  # type: ignore[assignment]
        output = generate(
            input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self.stop_ids,
            pad_token_id=pad,
        )
        return self.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)

    def _frame(self) -> tuple[list[int], list[int]]:
        """Token ids before a user's message, and from its end to the beginning of the answer."""
        if not self.tokenizer.chat_template:
            raise ValueError(f"{self.path}: its tokenizer has no chat template, so it is no chat model; take another")
        turns = [{"role": "user", "content": _MESSAGE}]
        text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        if text.count(_MESSAGE) != 1:
            raise ValueError(f"{self.path}: its chat template does not show a user's message once; set another")
        before, after = text.split(_MESSAGE)
        return (
            self.tokenizer.encode(before, add_special_tokens=False),
            self.tokenizer.encode(after, add_special_tokens=False),
        )

    def _stop_ids(self) -> list[int]:
        """EOS, and what else the model's generation config says ends a turn."""
        habits = self.model.generation_config
        said = habits.eos_token_id if habits is not None else None
        more = said if isinstance(said, list) else [] if said is None else [said]
        return sorted({int(self.tokenizer.eos_token_id), *map(int, more)})
