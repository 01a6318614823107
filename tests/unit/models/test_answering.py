"""An answer is what ``generate`` writes, told piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from helpers.models import tiny_model, tiny_policy
from helpers.prompts import MANY_STOPS, mini_codec
from lightning_r1.models.answering import Answerer, Habits, _Spoken
from lightning_r1.models.asked import shows_earlier_turns, shows_system_message
from lightning_r1.models.export import export_model

GREEDY = Habits(temperature=0)
QUESTION = [{"role": "user", "content": "2?5?1=9"}]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that stop now and then, as a stranger finds them."""
    codec = mini_codec(stop=MANY_STOPS)
    return export_model(tiny_policy(), codec, tmp_path_factory.mktemp("answering") / "model", card={})


@pytest.fixture(scope="module")
def answerer(exported: Path) -> Answerer:
    return Answerer(AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported))


@pytest.mark.parametrize("question", ["2?5?1=9", "1?1?1=3", "7?7=49"])
def test_it_tells_what_generate_writes(answerer: Answerer, question: str) -> None:
    pieces: list[str] = []
    messages = [{"role": "user", "content": question}]
    done = answerer.answer(messages, pieces.append, GREEDY, max_new_tokens=20)

    ids = answerer.tokenizer(f"{question}<think>", return_tensors="pt")
    row = answerer.model.generate(**ids, do_sample=False, max_new_tokens=20)[0, ids["input_ids"].shape[1] :]
    assert "".join(pieces) == answerer.tokenizer.decode(row).removesuffix("<eos>")
    assert done.tokens == len(row)
    assert done.finish_reason == ("stop" if row[-1] in answerer.stop_ids else "length")
    assert len(pieces) > 3 or done.tokens <= 3


def test_its_habits_are_the_exported_ones(answerer: Answerer) -> None:
    assert answerer.habits == Habits(temperature=0.6, top_p=0.95, top_k=0)
    assert len(answerer.stop_ids) == 1 + len(MANY_STOPS)


def test_sampling_follows_the_seed_and_the_temperature(answerer: Answerer) -> None:
    def sampled(temperature: float) -> str:
        torch.manual_seed(3)
        pieces: list[str] = []
        answerer.answer(QUESTION, pieces.append, Habits(temperature), max_new_tokens=20)
        return "".join(pieces)

    assert sampled(1.0) == sampled(1.0)
    assert sampled(1.0) != sampled(0.0)


def test_what_the_template_shows_is_found_out(answerer: Answerer) -> None:
    assert not shows_earlier_turns(answerer.tokenizer)
    assert not shows_system_message(answerer.tokenizer)
    codec = mini_codec(turn_end=";", system="{system}!")
    codec.tokenizer.chat_template = codec.template.chat_template()
    assert shows_earlier_turns(codec.tokenizer)
    assert shows_system_message(codec.tokenizer)


def test_room_is_what_the_context_leaves(answerer: Answerer) -> None:
    assert answerer.context == 96
    assert answerer.room(QUESTION) == 96 - 8
    assert Answerer(tiny_model("qwen3", max_position_embeddings=8), answerer.tokenizer).room(QUESTION) == 0


def test_a_model_without_a_chat_template_cannot_be_asked(answerer: Answerer) -> None:
    with pytest.raises(ValueError, match="no chat template"):
        Answerer(answerer.model, mini_codec().tokenizer)


def test_a_character_is_told_when_it_is_whole() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    text, pieces = "ü → 对 \N{ROCKET}!", []
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)

    spoken = _Spoken(tokenizer, pieces.append, hidden=set())
    spoken.put(torch.tensor([[1, 2]]))  # the prompt
    for token in ids:
        spoken.put(torch.tensor([token]))
    spoken.end()
    assert pieces == list(text)
