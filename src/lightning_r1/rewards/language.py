"""The language-consistency reward: share of the thinking's words that are in the target language.

R1 adds it to the other rewards of its reasoning RL directly (arXiv 2501.12948 v2, eq. 7 and section 3.2.1).
It says nothing about sense: "the the the" earns 1, and so does good prose with a wrong answer. It is added and not
multiplied with accuracy, as in the paper, so that it also tells wrong answers of a group apart; what it should be
worth is a matter of ``reward.weights.language``, the paper's weight is 1. :class:`.Repetition` is for "the the the".
Thinking that is empty, or formulas and code alone, earns nothing. The answer is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from lightning_r1.text.language import count_words, language_share, script_of, sentences
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class LanguageConsistency:
    """Scores what stands between the think tags, or everything if they are never closed.

    Args:
        tags: of the template.
        min_words: thinking with fewer words earns 0; at least 1, so that formulas alone earn nothing.
        han_weight: words that a character is worth in scripts without spaces
            (:mod:`lightning_r1.text.language`).
        detector: ``script`` tells languages by their script alone. ``lingua`` looks at sentences too, for
            languages of one script; it needs the extra ``lang``.
        languages: codes between which lingua chooses.

    Raises:
        ValueError: for options that do not fit together, or without lingua.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        min_words: int = 1,
        han_weight: float = 1.0,
        detector: Literal["script", "lingua"] = "script",
        languages: Sequence[str] = (),
    ) -> None:
        if min_words < 1:
            raise ValueError(f"reward.language.min_words={min_words}: expected >= 1, for no words are no language")
        if han_weight <= 0:
            raise ValueError(f"reward.language.han_weight={han_weight}: expected > 0")
        if detector not in ("script", "lingua"):
            raise ValueError(f"reward.language.detector={detector!r}: expected script or lingua")
        if (detector == "lingua") != (len(set(languages)) > 1):
            raise ValueError(
                f"reward.language.languages={list(languages)}: detector=lingua chooses between two at least, "
                "detector=script takes none"
            )
        self.tags, self.min_words, self.han_weight = tags, min_words, han_weight
        self.detector, self.languages = detector, tuple(languages)
        self.detect = _lingua(self.languages) if languages else None

    def __reduce__(self) -> tuple[Any, ...]:
        # models of languages are not sent to workers: each makes its own
        options: dict[str, Any] = {
            "min_words": self.min_words,
            "han_weight": self.han_weight,
            "detector": self.detector,
            "languages": self.languages,
        }
        return partial(LanguageConsistency, **options), (self.tags,)

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """0..1; ``wrong_format`` where there are too few words, ``unscorable`` for an unknown language."""
        thinking = self.tags.thinking(completion.text)
        try:
            share = self._share(thinking, prompt.language)
        except ValueError as error:
            return RewardScore(math.nan, Outcome.UNSCORABLE, str(error))
        words = sum(count_words(thinking).values())
        if words < self.min_words:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, f"{words:.0f} words of thinking, fewer than {self.min_words}")
        return RewardScore(share, Outcome.OK, f"{share:.2f} of {words:.0f} words are {prompt.language}")

    def _share(self, text: str, language: str) -> float:
        if self.detect is None:
            return language_share(text, language, self.han_weight)
        if language not in self.languages:
            raise ValueError(f"language={language!r}: reward.language.languages={list(self.languages)} has no such one")
        total = right = 0.0
        for sentence in sentences(text):
            words = count_words(sentence, self.han_weight)
            total += sum(words.values())
            # a foreign script stays foreign in whatever sentence it stands
            if self.detect(sentence) == language:
                right += sum(words.get(script, 0) for script in script_of(language))
        return right / total if total else 0.0


def _lingua(languages: Sequence[str]) -> Callable[[str], str | None]:
    """The language of a sentence, or None where lingua cannot tell."""
    try:
        import lingua
    except ModuleNotFoundError as error:
        raise ValueError(
            "reward.language.detector=lingua: lingua is not installed; pip install 'lightning-r1[lang]', or use "
            "detector=script"
        ) from error
    unknown = [code for code in languages if not hasattr(lingua.IsoCode639_1, code.upper())]
    if unknown:
        raise ValueError(f"reward.language.languages={list(languages)}: lingua does not know {', '.join(unknown)}")
    codes = [getattr(lingua.IsoCode639_1, code.upper()) for code in languages]
    detector = lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()

    def detect(sentence: str) -> str | None:
        language = detector.detect_language_of(sentence)
        return None if language is None else language.iso_code_639_1.name.lower()

    return detect
