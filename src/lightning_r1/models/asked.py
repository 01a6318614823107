"""What a tokenizer says of how its model is asked and read: the conversation it shows, and who can take it apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from lightning_r1.text.tags import Tags

Message = Mapping[str, str]
"""``role`` (system, user or assistant) and ``content``."""
_SEEN = "\ue000"  # private use: no template holds it, and none changes it


def conversation(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text with which the model is asked to go on."""
    turns = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def shows_earlier_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template shows what was said before the last question."""
    turns = (("user", _SEEN), ("assistant", _SEEN), ("user", ""))
    return _SEEN in conversation(tokenizer, [{"role": role, "content": content} for role, content in turns])


def shows_system_message(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template has a place for one."""
    return _SEEN in conversation(tokenizer, [{"role": "system", "content": _SEEN}, {"role": "user", "content": ""}])


def reasoning_parser(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """vLLM's name of the parser that takes thinking and answer apart; None if it has none for this model.

    DeepSeek-R1's wants each tag to be one token; the other one reads the ``response_template`` of an exported model.
    """
    tags, vocabulary = Tags(), tokenizer.get_vocab()
    if tags.think_open in vocabulary and tags.think_close in vocabulary:
        return "deepseek_r1"
    return "hf" if getattr(tokenizer, "response_template", None) else None


def hub_file(name: str, file: str) -> Path | None:
    """A file of a model on the hub, if it is here already."""
    missing_is_fine = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(name, file, local_files_only=True, **missing_is_fine)
    return None if found is None else Path(str(found))
