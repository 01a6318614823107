"""Rows of a reward model: framed by its template, and no text in them can pass for the frame."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from helpers.chat import ATTACKS, ROLES, chat_tokenizer
from helpers.prompts import mini_template
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.models.turns import TurnCodec, frame_of, with_turns


def decoded(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def test_a_row_is_what_the_chat_template_makes() -> None:
    tokenizer = chat_tokenizer()
    turns = [{"role": "user", "content": "Why é?"}, {"role": "assistant", "content": "So."}]
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert list(TurnCodec(tokenizer).row("Why é?", "So.")) == whole


def test_the_frame_is_found_around_the_texts() -> None:
    tokenizer = chat_tokenizer()
    before, between, after = frame_of(tokenizer)
    assert [decoded(tokenizer, part) for part in (before, between, after)] == [
        "<|user|>",
        "<|end|>\n<|assistant|>",
        "<|end|>",
    ]


@pytest.mark.parametrize("special", [True, False], ids=["special roles", "roles as plain added tokens"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("place", ["question", "response"])
def test_no_text_passes_for_the_frame(attack: str, place: str, special: bool) -> None:
    tokenizer = chat_tokenizer(special=special)
    codec = TurnCodec(tokenizer)
    honest = codec.row("q", "r")
    row = codec.row(attack, "r") if place == "question" else codec.row("q", attack)
    marks = set(tokenizer.added_tokens_decoder)
    assert [token for token in row if token in marks] == [token for token in honest if token in marks]
    assert row[-1] == honest[-1] == tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.pad_token_id not in row
    if special:  # nothing of the text is lost: it is read as the plain characters that it is
        assert attack.strip() in decoded(tokenizer, row)


def test_the_attacks_would_succeed_against_a_careless_row() -> None:
    # a test of the test above
    tokenizer = chat_tokenizer()
    marks = set(tokenizer.added_tokens_decoder) - {None}
    careless = [tokenizer.encode(attack, add_special_tokens=False) for attack in ATTACKS if "</think>" not in attack]
    assert all(marks & set(ids) for ids in careless)


@pytest.mark.parametrize("mark", ["<pad>", "<bos>", "<eos>"])
@pytest.mark.parametrize("form", ["{}12", "12{}", "1{}2", "{0}1{0}{0}2{0}"])
def test_a_tokenizer_that_knows_its_marks_as_words_has_them_stripped(mark: str, form: str) -> None:
    tokenizer = number_tokenizer()
    assert tokenizer.convert_tokens_to_ids(mark) in tokenizer.encode(mark, split_special_tokens=True)  # it ignores it
    ids = TurnCodec(with_turns(tokenizer, mini_template())).text_ids(form.format(mark))
    assert decoded(tokenizer, ids) in ("12", "1" + "2")
    assert not set(ids) & {0, 1, 2}


def test_what_would_become_padding_is_left_out() -> None:
    # the miniature's tokenizer makes padding of a character that it does not know
    tokenizer = number_tokenizer()
    assert tokenizer.encode("7é", add_special_tokens=False)[-1] == tokenizer.pad_token_id
    codec = TurnCodec(with_turns(tokenizer, mini_template()))
    assert codec.row("1+1=", "7é") == codec.row("1+1=", "7")


def test_an_unknown_word_stays_where_it_is_a_token_of_its_own() -> None:
    backend = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    # without a chat template the tokenizer's own form for pairs is taken, as encoders are trained
    codec = TurnCodec(tokenizer)
    assert codec.row("good", "very good") == (2, 4, 3, 0, 4, 3) == tuple(tokenizer("good", "very good")["input_ids"])
    assert codec.row("good", "good [SEP] [PAD]") == (2, 4, 3, 4, 3)


def test_ours_shows_prompt_and_response_without_the_prefill() -> None:
    template = mini_template(prompt="({question})", prefill="<think>")
    tokenizer = with_turns(number_tokenizer(), template)
    assert decoded(tokenizer, TurnCodec(tokenizer).row("1+2=", "3")) == "(1+2=)3<eos>"
    assert decoded(tokenizer, TurnCodec(tokenizer).row("1+2=", "<think>2</think>3")) == "(1+2=)<think>2</think>3<eos>"
    assert number_tokenizer().chat_template is None  # a copy was changed


def test_a_tokenizer_that_begins_with_bos_keeps_its_habit() -> None:
    tokenizer = chat_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    turned = with_turns(tokenizer, mini_template(prompt="Q: {question} A: "))
    assert decoded(turned, TurnCodec(turned).row("one", "two")) == "<s>Q: one A: two</s>"


def test_the_last_token_is_no_padding_where_eos_pads() -> None:
    tokenizer = with_turns(chat_tokenizer(pad_token="</s>"), mini_template())
    row = TurnCodec(tokenizer).row("one", "two")
    assert decoded(tokenizer, row) == "onetwo"
    assert TurnCodec(tokenizer).row("", "") == (tokenizer.pad_token_id,)  # a row is never empty


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [
        (None, "<|user|>question<|end|>\n<|assistant|>response<|end|>"),
        (21, "<|user|>question<|end|>\n<|assistant|>response<|end|>"),
        (20, "<|user|>uestion<|end|>\n<|assistant|>response<|end|>"),
        (14, "<|user|>n<|end|>\n<|assistant|>response<|end|>"),
        (13, "<|user|><|end|>\n<|assistant|>response<|end|>"),
        (12, "<|user|><|end|>\n<|assistant|>esponse<|end|>"),
        (6, "<|user|><|end|>\n<|assistant|>e<|end|>"),
    ],
)
def test_the_questions_beginning_goes_first_and_the_responses_end_never(max_tokens: int | None, expected: str) -> None:
    tokenizer = chat_tokenizer()
    row = TurnCodec(tokenizer, max_tokens=max_tokens).row("question", "response")
    assert decoded(tokenizer, row) == expected
    assert max_tokens is None or len(row) <= max_tokens


@pytest.mark.parametrize("max_tokens", [13, 9, 6, None, 40])
def test_a_response_that_does_not_fit_is_read_in_parts(max_tokens: int | None) -> None:
    tokenizer, said = chat_tokenizer(), "abcdefghijklmnopqrstuvwxyz"
    codec = TurnCodec(tokenizer, max_tokens=max_tokens)
    rows = codec.rows("question", said)
    assert rows[-1] == codec.row("question", said)
    if max_tokens in (None, 40):
        assert len(rows) == 1
        return
    parts = [decoded(tokenizer, row).partition("<|assistant|>")[2].removesuffix("<|end|>") for row in rows]
    assert {len(part) for part in parts} == {max_tokens - len(codec.frame)}
    places = [said.index(part) for part in parts]
    assert (places[0], places[-1]) == (0, len(said) - len(parts[-1]))
    assert all(0 < later - place <= len(parts[0]) for place, later in itertools.pairwise(places))  # no gap
    # a summary is short, and what is best of it stands at its end
    assert TurnCodec(tokenizer, scope="summary", max_tokens=max_tokens).rows("question", said) == rows[-1:]


@pytest.mark.parametrize(
    ("scope", "completion", "visible"),
    [
        ("summary", "<think>a</think>\n\nb ", "b"),
        ("summary", "<think>a</think>b</think>c", "c"),
        ("summary", "a plain response", "a plain response"),
        ("summary", "<think>a</think>", ""),
        ("response", " <think>a</think>b", "<think>a</think>b"),
    ],
)
def test_what_is_read_of_a_completion(scope: Any, completion: str, visible: str) -> None:
    tokenizer = chat_tokenizer()
    codec = TurnCodec(tokenizer, scope=scope)
    assert codec.visible(completion) == visible
    assert codec.row("q", completion) == TurnCodec(tokenizer).row("q", visible)


def without(tokenizer: PreTrainedTokenizerFast, **fields: Any) -> PreTrainedTokenizerFast:
    for name, value in fields.items():
        setattr(tokenizer, name, value)
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "options", "message"),
    [
        (chat_tokenizer(), {"scope": "thoughts"}, r"scope='thoughts': expected summary or response"),
        (chat_tokenizer(), {"max_tokens": 5}, r"max_tokens=5: the template alone takes 5; raise it"),
        (without(chat_tokenizer(), pad_token=None), {}, "has no pad token"),
        (without(chat_tokenizer(), chat_template=None), {}, "no chat template and puts nothing between"),
        (
            without(chat_tokenizer(), chat_template="{{ messages[0]['content'] }}"),
            {},
            "does not show a user's and an assistant's message once each",
        ),
    ],
    ids=["scope", "max_tokens", "pad", "no template", "half a template"],
)
def test_what_cannot_be_read_is_refused(tokenizer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TurnCodec(tokenizer, **options)


def test_the_roles_are_added_tokens() -> None:
    assert all(len(chat_tokenizer().encode(role, add_special_tokens=False)) == 1 for role in ROLES)
