"""A model in this process that answers a conversation, and is heard while it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from lightning_r1.models.asked import Message, conversation
from lightning_r1.models.policy import evaluating, plain_generation

_MOST = 32768  # new tokens of a model whose config names no context: the R1 paper's limit


@dataclass(frozen=True, slots=True)
class Habits:
    """How a model samples. Its own are those that ``generation_config.json`` names."""

    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is no limit."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What there is to say of an answer."""

    tokens: int
    finish_reason: Literal["stop", "length"]


class Answerer:
    """Answers conversations with the tokenizer's chat template.

    Args:
        model: on its device.
        tokenizer: of the model, with a chat template.

    Raises:
        ValueError: if the tokenizer has no chat template.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template, so nothing says how this model is asked")
        self.model, self.tokenizer = model, tokenizer
        config = model.config.get_text_config(decoder=True)
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        own = model.generation_config
        stops = getattr(own, "eos_token_id", None)
        self.stop_ids = sorted({int(tokenizer.eos_token_id), *_as_list(stops)})
        self.habits = Habits(
            temperature=_said(own, "temperature", 1.0) if _said(own, "do_sample", True) else 0.0,
            top_p=_said(own, "top_p", 1.0),
            top_k=_said(own, "top_k", 0),
        )

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation as the model is asked to go on with it."""
        return conversation(self.tokenizer, messages)

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens of an answer that fit into the model's context; none or fewer if the conversation fills it."""
        return _MOST if self.context is None else self.context - len(self._ids(messages))

    def answer(
        self,
        messages: Sequence[Message],
        tell: Callable[[str], None],
        habits: Habits,
        *,
        max_new_tokens: int,
    ) -> Answered:
        """Write an answer.

        Args:
            messages: the conversation; its last message is a question.
            tell: given every piece of text as soon as it is written, think tags included.
            habits: how to sample.
            max_new_tokens: at most :meth:`room`.

        Raises:
            KeyboardInterrupt: on Ctrl-C; what was told until then stands.
        """
        ids = self._ids(messages)
        input_ids = torch.tensor([ids], device=self.model.device)
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        spoken = _Spoken(self.tokenizer, tell, hidden={*special, int(self.tokenizer.eos_token_id)} & {*self.stop_ids})
        greedy = habits.temperature == 0
        how: dict[str, Any] = {"do_sample": False} if greedy else {
            "do_sample": True, "temperature": habits.temperature, "top_p": habits.top_p, "top_k": habits.top_k,
        }  # fmt: skip
        generate: Callable[..., Tensor] = self.model.generate  # type: ignore[assignment]
        with evaluating(self.model), plain_generation(self.model):
            row = generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=max_new_tokens,
                eos_token_id=self.stop_ids,
                pad_token_id=self.tokenizer.pad_token_id,
                streamer=spoken,
                **how,
            )[0].tolist()
        return Answered(len(row) - len(ids), "stop" if row[-1] in self.stop_ids else "length")

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenizer.encode(self.prompt(messages), add_special_tokens=False)


class _Spoken(BaseStreamer):
    """Tells the text of new tokens, as soon as they make whole characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tell: Callable[[str], None], *, hidden: set[int]) -> None:
        self.tokenizer, self.tell, self.hidden = tokenizer, tell, hidden
        self.of_prompt = True
        # a token's text depends on the one before it (a space between words, say)
        self.before: list[int] = []
        self.waiting: list[int] = []

    def put(self, value: Tensor) -> None:
        """New tokens; the prompt's come first."""
        if self.of_prompt:
            self.of_prompt = False
            return
        self.waiting += [token for token in value.flatten().tolist() if token not in self.hidden]
        self._speak(whole=True)

    def end(self) -> None:
        """The last of them, even if they make no whole character."""
        self._speak(whole=False)

    def _speak(self, *, whole: bool) -> None:
        said, text = self._decode(self.before), self._decode(self.before + self.waiting)
        if len(text) > len(said) and not (whole and text.endswith("\ufffd")):
            self.tell(text[len(said) :])
            self.before, self.waiting = self.waiting, []

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))


def _said(config: Any, name: str, otherwise: Any) -> Any:
    value = getattr(config, name, None)
    return otherwise if value is None else value


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
