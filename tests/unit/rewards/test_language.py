"""The language-consistency reward: what is scored, edge rules, and lingua for languages of one script."""

from __future__ import annotations

import math
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_r1.rewards.language import LanguageConsistency
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


def score(reward: LanguageConsistency, text: str, language: str = "en") -> RewardScore:
    prompt = Prompt("t/1", "?", "?", (1,), {}, language=language)
    return reward(prompt, Completion((1,), (0.0,), "stop", text))


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("<think>So we add</think><answer>答案是七</answer>", 1.0),  # the answer is not looked at
        ("<think>所以 we add</think><answer>seven</answer>", 0.5),
        ("<think>所以</think><answer>seven</answer>", 0.0),
        ("<think>So 我们 add", 0.5),  # never closed: everything
        ("So 我们 add</think>七", 0.5),  # opened by the prefill
        ("<think>So $x$ `码` 1+1</think>", 1.0),
    ],
)
def test_share_of_the_thinking(text: str, english: float) -> None:
    reward = LanguageConsistency(Tags())
    verdict = score(reward, text)
    assert verdict.value == pytest.approx(english)
    assert verdict.outcome is Outcome.OK
    assert score(reward, text, "zh").value == pytest.approx(1 - english)


@pytest.mark.parametrize("text", ["", "<think></think><answer>seven</answer>", "<think>2+2=4, $x$ `code`</think>", "1"])
def test_no_words_earn_nothing(text: str) -> None:
    for language in ("en", "zh"):
        verdict = score(LanguageConsistency(Tags()), text, language)
        assert (verdict.value, verdict.outcome) == (0.0, Outcome.WRONG_FORMAT)
        assert "0 words of thinking" in verdict.detail


def test_what_it_can_be_made_to_pay_for() -> None:
    """It is added to other rewards for a reason, and these are what those others are for."""
    reward = LanguageConsistency(Tags())
    assert score(reward, "<think>the the the the the</think><answer>1</answer>").value == 1  # Repetition
    assert score(reward, "<think>Lovely weather.</think><answer>wrong</answer>").value == 1  # Accuracy
    assert score(reward, "<think>So</think>").value == 1  # Format, and min_words
    assert score(reward, "<think>So</think><answer>答案是七</answer>").value == 1  # the answer is not looked at


@pytest.mark.parametrize(
    "thinking",
    [
        "$x = 3$ \\[ y = 4 \\] \\frac{1}{2} 3 + 4 = 7",  # formulas alone
        "```python\nprint('so we add')\n```",  # code alone
        "```so we add and never close the fence",
        "`so we add`",
        "https://example.com/so/we/add",
        "</b><b></i>",
        " \n \t ",
        "12345 ... !!! ---",
        "x y z n m k",  # names of variables
    ],
)
def test_what_holds_no_words_earns_nothing(thinking: str) -> None:
    for language in ("en", "zh"):
        assert score(LanguageConsistency(Tags()), f"<think>{thinking}</think>so", language).value == 0


def test_hiding_the_other_language_in_code_does_not_lower_what_stands_outside() -> None:
    """What is fenced is no language: it neither pays nor costs."""
    assert score(LanguageConsistency(Tags()), "<think>So we add ```所以我们``` them</think>").value == 1
    assert score(LanguageConsistency(Tags()), "<think>```所以我们```</think>").value == 0


def test_fewest_words() -> None:
    reward = LanguageConsistency(Tags(), min_words=3)
    assert score(reward, "<think>two words</think>").value == 0.0
    assert score(reward, "<think>now three words</think>").value == 1.0


def test_the_weight_of_a_character() -> None:
    text = "<think>one two three 四五六七八</think>"
    assert score(LanguageConsistency(Tags(), han_weight=0.6), text).value == pytest.approx(0.5)


def test_an_unknown_language_cannot_be_scored() -> None:
    verdict = score(LanguageConsistency(Tags()), "<think>So</think>", "xx")
    assert math.isnan(verdict.value)
    assert verdict.outcome is Outcome.UNSCORABLE
    assert "language='xx'" in verdict.detail


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_words": 0}, "min_words=0: expected >= 1"),
        ({"han_weight": 0.0}, "han_weight=0.0: expected > 0"),
        ({"detector": "langid"}, "detector='langid': expected script or lingua"),
        ({"detector": "lingua"}, r"languages=\[\]: detector=lingua chooses between two at least"),
        ({"detector": "lingua", "languages": ["en"]}, r"languages=\['en'\]"),
        ({"languages": ["en", "fr"]}, "detector=script takes none"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageConsistency(Tags(), **options)


def test_without_lingua_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-r1\[lang\]'"):
        LanguageConsistency(Tags(), detector="lingua", languages=["en", "fr"])


class FakeLingua:
    """lingua's interface, over a list of French words."""

    FRENCH = frozenset({"donc", "la", "réponse", "est", "alors"})

    class IsoCode639_1:
        EN = SimpleNamespace(name="EN")
        FR = SimpleNamespace(name="FR")

    class LanguageDetectorBuilder:
        @staticmethod
        def from_iso_codes_639_1(*codes: Any) -> Any:
            def detect(sentence: str) -> Any:
                words = {word.strip(",").lower() for word in sentence.split()}
                if not words & {*FakeLingua.FRENCH, "so", "we", "add"}:
                    return None
                french = len(words & FakeLingua.FRENCH) * 2 > len(words)
                code = FakeLingua.IsoCode639_1.FR if french else FakeLingua.IsoCode639_1.EN
                return SimpleNamespace(iso_code_639_1=code)

            return SimpleNamespace(build=lambda: SimpleNamespace(detect_language_of=detect))


@pytest.fixture
def lingua(monkeypatch: pytest.MonkeyPatch) -> LanguageConsistency:
    monkeypatch.setitem(sys.modules, "lingua", FakeLingua)  # type: ignore[arg-type]
    return LanguageConsistency(Tags(), detector="lingua", languages=["en", "fr"])


@pytest.mark.parametrize(
    ("thinking", "french", "english"),
    [
        ("Donc la réponse est $x$.", 1.0, 0.0),
        ("Donc la réponse est 3. So we add them up.", 4 / 9, 5 / 9),
        ("Donc la réponse est 对吗. So we add.", 4 / 9, 3 / 9),  # Chinese characters are neither
        ("Donc la réponse. Xyzzy!", 3 / 4, 0.0),  # nobody knows which language that is
    ],
)
def test_sentence_by_sentence(lingua: LanguageConsistency, thinking: str, french: float, english: float) -> None:
    assert score(lingua, f"<think>{thinking}</think>", "fr").value == pytest.approx(french)
    assert score(lingua, f"<think>{thinking}</think>", "en").value == pytest.approx(english)


def test_lingua_and_languages_it_was_not_given(lingua: LanguageConsistency, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = score(lingua, "<think>Donc</think>", "de")
    assert verdict.outcome is Outcome.UNSCORABLE
    assert "language='de'" in verdict.detail
    assert score(lingua, "<think>1+1</think>", "fr").outcome is Outcome.WRONG_FORMAT
    with pytest.raises(ValueError, match="lingua does not know xx"):
        LanguageConsistency(Tags(), detector="lingua", languages=["en", "xx"])


def test_lingua_is_made_anew_where_the_reward_is_sent(lingua: LanguageConsistency) -> None:
    again = pickle.loads(pickle.dumps(lingua))
    assert vars(again).keys() == vars(lingua).keys()
    assert again.detect is not None
    assert (again.tags, again.languages, again.min_words) == (lingua.tags, lingua.languages, lingua.min_words)
