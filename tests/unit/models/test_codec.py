"""Template and tokenizer together: text to tokens and back."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from helpers.prompts import MANY_STOPS, mini_codec, mini_template
from lightning_r1.models.codec import Codec
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion


def character_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Every character is a token, tags are many."""
    pieces = ["<pad>", "<eos>", "<end>", *map(chr, range(32, 127))]
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    backend.decoder = decoders.Fuse()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", **special}
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def completion(codec: Codec, text: str) -> Completion:
    ids = tuple(codec.tokenizer.encode(text, add_special_tokens=False))
    return Completion(ids, (0.0,) * len(ids), "stop", text=codec.completion_text(ids))


def test_a_prompt_is_the_rendered_question() -> None:
    codec = mini_codec(prompt="x {question}:")
    prompt = codec.prompt("2?5?1=9", {"kind": "number", "value": 9}, id="test/1", source="test")

    assert (prompt.id, prompt.question, prompt.source) == ("test/1", "2?5?1=9", "test")
    assert prompt.text == "x 2?5?1=9:<think>"
    assert prompt.answer == {"kind": "number", "value": 9}
    assert codec.tokenizer.decode(prompt.token_ids) == "x 2?5?1=9:<think>"
    assert codec.tokenizer.convert_ids_to_tokens(prompt.token_ids)[-2:] == [":", "<think>"]


def test_the_worked_example_of_a_prompt(codec: Codec) -> None:
    prompt = codec.prompt("2?5?1=9", {"kind": "number", "value": 9}, id="operators/2?5?1=9")
    pieces = ["2", "?", "5", "?", "1", "=", "9", "<think>"]
    assert prompt.token_ids == tuple(codec.tokenizer.convert_tokens_to_ids(pieces))


@pytest.mark.parametrize(
    ("sampled", "read"),
    [
        ("2+5=7;</think><answer>2+5</answer><eos>", "<think>2+5=7;</think><answer>2+5</answer>"),
        ("2+5<eos><pad><pad>", "<think>2+5"),
        ("<eos>", "<think>"),
        ("", "<think>"),
        ("2 + 15 ", "<think>2 + 15 "),
        ("<think>2", "<think><think>2"),
    ],
)
def test_a_completion_as_rewards_read_it(codec: Codec, sampled: str, read: str) -> None:
    ids = codec.tokenizer.encode(sampled, add_special_tokens=False)
    assert codec.completion_text(ids) == read


def test_a_stop_string_is_part_of_what_was_written() -> None:
    codec = mini_codec(stop=("</answer>",))
    ids = codec.tokenizer.encode("1</think><answer>1</answer>", add_special_tokens=False)
    assert codec.stop_ids == (codec.tokenizer.eos_token_id, ids[-1])
    assert codec.completion_text(ids) == "<think>1</think><answer>1</answer>"


def test_a_pad_in_the_middle_does_not_glue_its_neighbours(codec: Codec) -> None:
    # a policy can sample any token; "1<pad>2" must not be read as 12
    ids = codec.tokenizer.encode("</think><answer>1<pad>2</answer>", add_special_tokens=False)
    assert "<answer>12</answer>" not in codec.completion_text(ids)


def test_eos_always_stops() -> None:
    assert mini_codec().stop_ids == (2,)
    codec = mini_codec(stop=MANY_STOPS)
    assert codec.stop_ids[0] == 2
    assert codec.tokenizer.convert_ids_to_tokens(codec.stop_ids[1:]) == list(MANY_STOPS)


@pytest.mark.parametrize("stop", ["12345", "User:", "2+2"])
def test_a_stop_string_of_several_tokens_is_refused(stop: str) -> None:
    with pytest.raises(ValueError, match=r"template\.stop.*is not one token of this tokenizer.*Remove it") as refusal:
        mini_codec(stop=(stop,))
    assert repr(stop) in str(refusal.value)


def test_tags_that_the_tokenizer_cannot_write_are_refused() -> None:
    # no # in its alphabet
    with pytest.raises(ValueError, match=r"template\.tags: '##think##' does not survive this tokenizer"):
        mini_codec(tags=Tags(think_open="##think##"))


def test_the_tokenizers_own_bos_is_in_the_prompt() -> None:
    tokenizer = number_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    codec = Codec(mini_template(), tokenizer)
    assert codec.encode("2")[0] == 1
    assert len(codec.encode("2")) == 2
    # and no stop string becomes two tokens by it
    assert len(Codec(mini_template(stop=("!",)), tokenizer).stop_ids) == 2


FINGERPRINTED = [
    {"prompt": "x{question}"},
    {"prefill": ""},
    {"stop": ("</answer>",)},
    {"tags": Tags(answer_open="<think>!")},
]


@pytest.mark.parametrize("fields", FINGERPRINTED, ids=lambda fields: next(iter(fields)))
def test_the_fingerprint_changes_with_the_template(codec: Codec, fields: dict[str, object]) -> None:
    assert mini_codec(**fields).fingerprint() != codec.fingerprint()


@pytest.mark.parametrize("fields", [{"name": "other"}, {"reflection_markers": ("wait",)}], ids=str)
def test_the_fingerprint_ignores_names_and_markers(codec: Codec, fields: dict[str, object]) -> None:
    assert mini_codec(**fields).fingerprint() == codec.fingerprint()


def test_the_fingerprint_is_short_and_the_same_for_equals(codec: Codec) -> None:
    assert codec.fingerprint() == mini_codec().fingerprint()
    assert len(codec.fingerprint()) == 12
    int(codec.fingerprint(), 16)


def test_the_fingerprint_changes_with_the_vocabulary() -> None:
    larger = number_tokenizer()
    larger.add_tokens(["wait"])
    assert Codec(mini_template(), larger).fingerprint() != mini_codec().fingerprint()


def test_the_fingerprint_changes_with_the_way_text_is_cut() -> None:
    # the same vocabulary, but 15 becomes 1 and 5: transformers does that to some architectures when it loads them
    digits = number_tokenizer()
    digits.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    assert digits.tokenize("15") == ["1", "5"]
    assert digits.get_vocab() == number_tokenizer().get_vocab()
    tags = Tags("x", "a", "b", ":")  # which survive both
    assert Codec(mini_template(tags=tags), digits).fingerprint() != mini_codec(tags=tags).fingerprint()


def test_the_fingerprint_changes_with_the_stop_tokens() -> None:
    # same template, same vocabulary, another EOS: completions end elsewhere
    one = Codec(mini_template(), character_tokenizer())
    other = Codec(mini_template(), character_tokenizer(eos_token="<end>"))
    assert one.stop_ids != other.stop_ids
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2+5=7;</think><answer>2+5</answer><eos>", 6),
        ("2+5=7;", 6),
        ("2+5=7;<eos>", 6),
        ("</think>", 0),
        ("", 0),
        ("2</think>2</think>2", 3),  # as Tags.thinking: up to the last closing tag
    ],
)
def test_tokens_of_the_thinking(codec: Codec, text: str, tokens: int) -> None:
    assert codec.thinking_tokens(completion(codec, text)) == tokens


def test_tags_are_no_tokens_of_the_thinking() -> None:
    # without a prefill the policy opens the thinking itself
    codec = mini_codec(prefill="")
    assert codec.thinking_tokens(completion(codec, "<think>2+5=7;</think><answer>2+5</answer><eos>")) == 6


def test_tokens_of_the_thinking_where_tags_are_many_tokens() -> None:
    codec = Codec(mini_template(prefill=""), character_tokenizer())
    written = completion(codec, "<think>12345678901</think><answer>4</answer>")
    # every character is a token, so that the share of the characters is exact
    assert codec.thinking_tokens(written) == pytest.approx(11)
