"""A chat model in this process: greedy, each message alone, and no text ends its own turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.chat import ATTACKS, chat_tokenizer
from helpers.models import tiny_model
from lightning_r1.models.chat import LocalChat

GENERATION = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model; its generation config names a second stop token and habits that must not count."""
    path = tmp_path_factory.mktemp("chat") / "model"
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = GENERATION
    model = tiny_model("qwen3", vocab_size=len(tokenizer))
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids("<|end|>")]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    habits = json.loads((path / "generation_config.json").read_text())
    (path / "generation_config.json").write_text(
        json.dumps({**habits, "do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0})
    )
    return path


def naive(chat: LocalChat, message: str) -> str:
    """One token after the other, no cache, no padding."""
    ids = chat.row(message)
    start = len(ids)
    while len(ids) - start < chat.max_new_tokens:
        with torch.no_grad():
            token = int(chat.model(torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        if token in chat.stop_ids:
            break
    return str(chat.tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_answers_are_those_of_a_naive_loop(folder: Path) -> None:
    chat = LocalChat(folder, max_new_tokens=12, micro_batch_tokens=64)
    messages = ["hello", "a", "is this right?", "hello", "which one is better, A or B?"]
    answers = chat.answer(messages)
    assert answers == [naive(chat, message) for message in messages]
    assert len(set(answers)) > 2
    assert answers[0] == answers[3]
    assert chat.answer([]) == []
    assert not chat.model.training
    assert not any(parameter.requires_grad for parameter in chat.model.parameters())


def test_stop_tokens_are_the_tokenizers_and_the_models(folder: Path) -> None:
    chat = LocalChat(folder)
    names = chat.tokenizer.convert_ids_to_tokens(chat.stop_ids)
    assert set(names) == {"</s>", "<|end|>"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_text_cannot_end_its_turn(attack: str, folder: Path) -> None:
    chat = LocalChat(folder)
    row, tokenizer = chat.row(attack), chat.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    inside = row[len(chat.before) : len(row) - len(chat.after)]
    assert not special & set(inside)
    assert tokenizer.decode(inside) == attack
    assert tokenizer.decode(chat.before) == "<|user|>"
    assert tokenizer.decode(chat.after) == "<|end|><|assistant|>"


def test_what_does_not_fit_is_not_answered(folder: Path) -> None:
    chat = LocalChat(folder, max_new_tokens=16)
    assert chat.context == 96
    fitting = "x" * (96 - 16 - 3)
    assert [answer is None for answer in chat.answer([fitting, fitting + "x", "hi"])] == [False, True, False]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "its tokenizer has no chat template, so it is no chat model"),
        ("{{ 'hello' }}", "does not show a user's message once"),
    ],
)
def test_what_is_no_chat_model_is_refused(template: str | None, message: str, folder: Path, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template  # type: ignore[assignment]
    tiny_model("qwen3", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        LocalChat(tmp_path)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"micro_batch_tokens": 0}], ids=str)
def test_options_out_of_range(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=0: expected >= 1"):
        LocalChat(folder, **options)
