"""A question and a response as one row of tokens, in which text stays text.

A reward model reads what the policy wrote that is paid for it. Tokenised carelessly, ``<pad>`` or a role token
in such a text becomes the real token: it ends the response before its end, moves the position at which the
score is read, or opens a turn that praises the first. So the frame of the two turns comes from the
tokenizer's chat template, and the text between is tokenised apart from it, without special tokens. (Where a
template's roles are plain words, "User:", plain words can imitate them: nothing can be done about that here.)
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from lightning_r1.text.tags import Scope, Tags
from lightning_r1.text.templates import Template

# private-use characters: no template holds them, and none changes them
_QUESTION, _RESPONSE = "\ue000", "\ue001"


class TurnCodec:
    """Makes the rows that a reward model reads.

    Args:
        tokenizer: of the reward model, with a chat template, or with separators for pairs of texts.
        scope: ``summary`` reads what follows the last closing think tag, and all of a text without one.
        tags: of the thinking.
        max_tokens: of a row. The question loses its beginning first, then the response; never its end.

    Raises:
        ValueError: if the tokenizer cannot tell a question from a response, or has no pad token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        scope: Scope = "response",
        tags: Tags | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if scope not in ("summary", "response"):
            raise ValueError(f"scope={scope!r}: expected summary or response")
        if tokenizer.pad_token_id is None:
            raise ValueError("the reward model's tokenizer has no pad token, and no EOS to take its place; set one")
        self.tokenizer, self.scope, self.tags, self.max_tokens = tokenizer, scope, tags or Tags(), max_tokens
        self.pad_id: int = tokenizer.pad_token_id
        self.before, self.between, self.after = frame_of(tokenizer)
        self.frame = (*self.before, *self.between, *self.after)
        if max_tokens is not None and max_tokens <= len(self.frame):
            raise ValueError(f"max_tokens={max_tokens}: the template alone takes {len(self.frame)}; raise it")
        self._reserved = reserved_ids(tokenizer, self.frame)

    def row(self, question: str, completion: str) -> tuple[int, ...]:
        """Token ids of both turns; the last of them is where the score is read, and is no padding.

        Args:
            question: as it was asked, before any template.
            completion: whole, thinking included; what of it is read is the scope's matter.
        """
        asked, said = self.text_ids(question), self.text_ids(self.visible(completion))
        if self.max_tokens is not None:
            room = self.max_tokens - len(self.frame)
            said = said[max(0, len(said) - room) :]
            asked = asked[max(0, len(asked) + len(said) - room) :]
        return self._framed(asked, said)

    def _framed(self, asked: Sequence[int], said: Sequence[int]) -> tuple[int, ...]:
        ids = [*self.before, *asked, *self.between, *said, *self.after]
        # where EOS is the pad token too, transformers takes it for padding and reads the score before it
        while len(ids) > 1 and ids[-1] == self.pad_id:
            ids.pop()
        return tuple(ids or [self.pad_id])

    def rows(self, question: str, completion: str) -> list[tuple[int, ...]]:
        """The rows that are scored; more than one where all of a response is to be read, and a row does not hold it.

        Then it is read in parts, which overlap by an eighth. The last of them is :meth:`row`.
        """
        said = self.text_ids(self.visible(completion))
        room = len(said) if self.max_tokens is None else self.max_tokens - len(self.frame)
        if self.scope == "summary" or len(said) <= room:
            return [self.row(question, completion)]
        ends = [*range(len(said), room, -(room - room // 8)), room]
        return [self._framed([], said[end - room : end]) for end in reversed(ends)]

    def visible(self, completion: str) -> str:
        """The part of a completion that is read, without white space around it."""
        after = self.tags.after_thinking(completion) if self.scope == "summary" else None
        return (completion if after is None else after).strip()

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is special.

        A tokenizer that knows its special tokens as words too, or makes padding of what it does not know, gives
        some nevertheless: those are left out.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [token for token in ids if token not in self._reserved]


def frame_of(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int]]:
    """Token ids before the question, between it and the response, and after that.

    Raises:
        ValueError: if neither a chat template nor the tokenizer's form for pairs tells the two apart.
    """
    if not tokenizer.chat_template:
        return _pair_frame(tokenizer)
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _RESPONSE}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    if text.count(_QUESTION) != 1 or text.count(_RESPONSE) != 1 or text.index(_QUESTION) > text.index(_RESPONSE):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path or 'the reward model'} does not show a user's and an "
            "assistant's message once each, in this order; set tokenizer.chat_template to one that does"
        )
    before, rest = text.split(_QUESTION)
    between, after = rest.split(_RESPONSE)
    before_ids, between_ids, after_ids = (
        tokenizer.encode(part, add_special_tokens=False) for part in (before, between, after)
    )
    return before_ids, between_ids, after_ids


def _pair_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int]]:
    """The special tokens around a pair of texts: what encoders were trained with."""
    encoded = tokenizer("a", "b")
    ids, owners = encoded["input_ids"], encoded.sequence_ids()
    first, second = owners.index(0), owners.index(1)
    last = len(owners) - owners[::-1].index(1)
    between = [token for token, owner in zip(ids[first:second], owners[first:second], strict=True) if owner is None]
    if not between:
        raise ValueError(
            f"{tokenizer.name_or_path or 'the reward model'}: its tokenizer has no chat template and puts nothing "
            "between a question and a response; set tokenizer.chat_template to the one it was trained with"
        )
    return ids[:first], between, ids[last:]


def with_turns(tokenizer: PreTrainedTokenizerBase, template: Template) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer whose chat template shows a question and its response as our template does."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template.turns_template(bos=opening(tokenizer), eos=tokenizer.eos_token or "")
    return changed


def opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """BOS, where the tokenizer has the habit of putting it in front of a text."""
    habit = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if habit else ""


def reserved_ids(tokenizer: PreTrainedTokenizerBase, frame: Collection[int]) -> set[int]:
    """Tokens that no text may become: special ones, and those that frame the turns.

    "Unknown" is one that it may, where it is a token of its own.
    """
    added = tokenizer.added_tokens_decoder
    reserved = {index for index, token in added.items() if token.special or index in frame}
    names = ("pad", "bos", "eos", "sep", "cls", "mask")
    named = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
    unknown = {tokenizer.unk_token_id} - named
    return {token for token in reserved | set(tokenizer.all_special_ids) | named if token is not None} - unknown
