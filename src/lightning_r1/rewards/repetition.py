r"""The repetition penalty: how much of a completion stood in it before.

.. math:: R = -\text{max\_penalty} \cdot \frac{\text{n-grams that stood before}}{\text{n-grams}}

After the n-gram penalty of arXiv 2502.03373 (algorithm 1), which punishes each repeated token of a dense reward, at
40 tokens an n-gram and 0.05 a token; here the share of them is one number for the completion, as outcome rewards are.

An n-gram is of pieces (:func:`lightning_r1.text.filters.pieces`): words, ideographs, symbols. What a policy could do
to go round in circles unseen, and what is done about it:

* other case, full-width letters, accents, invisible characters: read as plain lower-case text;
* one symbol, letter or blank line without end, or a word without end: cut into pieces;
* counting along ("Step 1: wait. Step 2: wait."): not seen, because an honest enumeration looks the same; with
  ``all_numbers_alike`` it is seen, and honest enumerations are punished too;
* long text that is new: lowers the share. It has to be long, which :mod:`lightning_r1.rewards.length` is for.
"""

from __future__ import annotations

import re
import unicodedata

from lightning_r1.text.filters import repetition
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

# marks on letters, selectors of variants, tags and fillers: any number of them can be put into every word
_INVISIBLE = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0000-\U000e0fff"
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb]"
)
# Sixteen of one character are one piece: a rule drawn with dashes is five, a page of them hundreds. A word longer
# than any is cut, or "hahaha..." would be a single piece.
_RUNS = re.compile(r"([^\w\s]|_|[^\W\d])\1{15}|(\s)\2{15}")
_WORDS_WITHOUT_END = re.compile(r"[^\W_]{64}")
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")


class Repetition:
    """Takes away up to ``max_penalty`` by the share of a completion's n-grams that stood in it before.

    Args:
        ngram: pieces of what counts as the same. Less than 8 punishes ordinary mathematics; the paper's is 40 tokens.
        max_penalty: what a completion loses that says nothing new; 0 takes nothing away.
        all_numbers_alike: read every number as the same one.

    Raises:
        ValueError: for an n-gram of less than two pieces, or a penalty below 0.
    """

    def __init__(self, *, ngram: int = 16, max_penalty: float = 1.0, all_numbers_alike: bool = False) -> None:
        if ngram < 2:
            raise ValueError(f"ngram={ngram}: expected >= 2, for every text repeats single words")
        if max_penalty < 0:
            raise ValueError(f"max_penalty={max_penalty}: expected >= 0; it is taken away")
        self.ngram, self.max_penalty, self.all_numbers_alike = ngram, max_penalty, all_numbers_alike

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """``-max_penalty`` to 0; 0 for a completion that is shorter than one n-gram. Linear in the length."""
        share, _ = repetition(self._plain(completion.text), self.ngram)
        return RewardScore(-self.max_penalty * share, Outcome.OK, f"{share:.2f} of it stood before")

    def _plain(self, text: str) -> str:
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", text).casefold()
        if self.all_numbers_alike:
            text = _NUMBERS.sub("0", text)
        text = _RUNS.sub(lambda run: f" {run[1]} " if run[1] else " ␣ ", text)
        return _WORDS_WITHOUT_END.sub(r"\g<0> ", text)
