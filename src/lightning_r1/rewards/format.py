"""The format rewards: whether thinking and answer stand between their tags (R1 paper, section 2.2).

The tags are the template's, to the letter: other case, look-alike letters or spaces within are no tags. They are not
looked for with care for what stands around them: a tag quoted in code, or in a sentence about tags, is a tag too many.
What stands in the answer is no matter of format. Neither is what the thinking says: "x" is thinking, unless
``min_thinking_pieces`` asks for more, which a policy can fill with anything.
"""

from __future__ import annotations

from lightning_r1.text.filters import pieces
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class Format:
    """Strict: each tag once, in order, nothing outside (:meth:`lightning_r1.text.tags.Tags.is_strict`).

    Args:
        tags: of the template.
        min_thinking_pieces: words, ideographs and symbols that the thinking has to have.

    Raises:
        ValueError: if the thinking may be empty.
    """

    def __init__(self, tags: Tags, *, min_thinking_pieces: int = 1) -> None:
        if min_thinking_pieces < 1:
            raise ValueError(f"min_thinking_pieces={min_thinking_pieces}: expected >= 1, for thinking is never empty")
        self.tags, self.min_thinking_pieces = tags, min_thinking_pieces

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0."""
        text = completion.text
        if self.tags.is_strict(text) and self._is_thinking(self.tags.thinking(text)):
            return RewardScore(1.0)
        return RewardScore(0.0, Outcome.WRONG_FORMAT)

    def _is_thinking(self, text: str) -> bool:
        # there are never more pieces than characters: nothing is cut where it cannot matter
        return bool(text.strip()) if self.min_thinking_pieces == 1 else len(pieces(text)) >= self.min_thinking_pieces


class TagCount(Format):
    """Partial credit on the way to the strict format: a quarter for each tag in its place, from the first on.

    The places: the opening tag of the thinking in front of everything, its closing tag behind some thinking, the
    answer's opening tag right behind it, its closing tag behind some answer and in front of nothing. It ends at the
    first tag that is not in its place. So 1 is the strict format and nothing else is, and a text with some tag twice
    earns nothing. (Credit for each tag that stands once, wherever it stands, can be had with four bare tags in any
    order.)

    Where the template's prefill opens the thinking, the first quarter is free; as it is for every completion of a
    group, it teaches nothing.
    """

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """0, 0.25, 0.5, 0.75 or 1; ``wrong_format`` below 1."""
        placed = self._placed(completion.text)
        detail = f"{placed} of 4 tags in their place"
        return RewardScore(placed / 4, Outcome.OK if placed == 4 else Outcome.WRONG_FORMAT, detail)

    def _placed(self, text: str) -> int:
        tags = self.tags
        order = (tags.think_open, tags.think_close, tags.answer_open, tags.answer_close)
        if any(text.count(tag) > 1 for tag in order):
            return 0
        rest, placed = text, 0
        for tag in order:
            before, found, rest = rest.partition(tag)
            fits = (not before.strip(), self._is_thinking(before), not before.strip(), bool(before.strip()))[placed]
            if not found or not fits or any(other in before for other in order):
                return placed
            placed += 1
        return placed if not rest.strip() else placed - 1
