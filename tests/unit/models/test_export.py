"""What leaves the project is a plain transformers folder with this project's template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from helpers.models import tiny_policy
from helpers.prompts import mini_codec, mini_template
from lightning_r1.config.compose import compose_config
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import export_model, read_card
from lightning_r1.models.tokenizer import number_tokenizer

CARD = {"phase": "r1_zero", "steps": 12}


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_the_folder_loads_and_says_the_same(family: str, codec: Codec, tmp_path: Path) -> None:
    policy = tiny_policy(family)

    folder = export_model(policy, codec, tmp_path / "model", card=CARD)

    assert folder == tmp_path / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer.encode("2?5?1=9<think>2+5")])
    assert ids.tolist()[0] == list(codec.encode("2?5?1=9<think>2+5"))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, policy.model(ids).logits, rtol=0, atol=0)
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "lightning_r1.json",
    }


@pytest.mark.parametrize(
    "prompt",
    [
        "{question}",
        "User: {question}\nAssistant:\n",
        'Quoted "{question}" and \\backslash\\ and \\n no newline',
        "{% raw %} {question} {{ braces }} {# no comment #}",
        "Tab\tand 'single' quotes {question}",
        "Ελληνικά, 中文 – {question}",
        "an emoji \N{GRINNING FACE} {question} \N{ROCKET}",
        "  spaces around {question}  \n\n",
    ],
)
@pytest.mark.parametrize("prefill", ["", "<think>", " <think>\n"])
@pytest.mark.parametrize("question", ["2?5?1=9", "{question} {{x}} \"'\\n <b>\n\n", ""])
def test_the_chat_template_renders_the_template(prompt: str, prefill: str, question: str) -> None:
    codec = mini_codec(prompt=prompt, prefill=prefill)
    tokenizer = codec.tokenizer
    tokenizer.chat_template = codec.template.chat_template()
    messages = [{"role": "user", "content": question}]

    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    without = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    assert rendered == codec.template.render(question)
    assert without + prefill == rendered


def test_the_exported_chat_template_renders_the_last_question(tmp_path: Path) -> None:
    codec = mini_codec(prompt="x: {question}\n=")
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card={})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2+2"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == codec.template.render("2+2")
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tuple(ids) == codec.prompt("2+2", {"kind": "number", "value": 4}, id="test/1").token_ids


@pytest.mark.parametrize("family", ["qwen2", "phi3", "deepseek_v3"])
def test_a_tokenizer_that_would_be_read_back_as_another_is_refused(family: str, codec: Codec, tmp_path: Path) -> None:
    # transformers replaces the tokenizer of some architectures when it loads them, without a word
    refusal = ""
    try:
        folder = export_model(tiny_policy(family), codec, tmp_path / "model", card={})
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert "tokenizer" in refusal
    else:
        ids = AutoTokenizer.from_pretrained(folder).encode("2?15?1=9<think>")
        assert tuple(ids) == codec.encode("2?15?1=9<think>")


CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "<think>\n1, 2</think>\n\n2"},
    {"role": "user", "content": "2+2"},
]


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        # what the chat templates of DeepSeek-R1 and of Qwen's thinking models render, BOS apart
        "deepseek_r1": (
            "be brief<｜User｜>1+1<｜Assistant｜>\n\n2<｜end▁of▁sentence｜><｜User｜>2+2<｜Assistant｜><think>\n"
        ),
        "chatml": (
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n\n\n2"
            "<|im_end|>\n<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n<think>\n"
        ),
    }.items(),
)
def test_a_conversation_shows_earlier_turns_without_their_thinking(name: str, expected: str) -> None:
    template = instantiate(compose_config("evaluate", ["model.path=org/model", f"template={name}"])["template"])
    tokenizer = number_tokenizer()
    tokenizer.chat_template = template.chat_template(bos="<s>")
    rendered = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    assert rendered == "<s>" + expected
    alone = tokenizer.apply_chat_template(CONVERSATION[-1:], tokenize=False, add_generation_prompt=True)
    assert alone == "<s>" + template.render("2+2")


def test_the_chat_template_puts_bos_where_the_tokenizer_does(tmp_path: Path) -> None:
    # a chat's text is tokenised without special tokens: BOS has to be in it, as it was in training
    tokenizer = number_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    codec = Codec(mini_template(), tokenizer)
    assert codec.encode("1")[0] == 1
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card={})
    messages = [{"role": "user", "content": "2+2"}]
    ids = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert tuple(ids) == codec.encode("2+2<think>")


@pytest.mark.parametrize(
    ("prefill", "written"),
    [("<think>", "2+2=4</think>4<eos>"), ("<think>\n", "2+2=4</think>4"), ("", "<think>2+2=4</think>4<eos><pad>")],
)
def test_transformers_takes_thinking_and_answer_apart(prefill: str, written: str, tmp_path: Path) -> None:
    codec = mini_codec(prompt="<think>?</think> {question}\n=", prefill=prefill)
    tokenizer = AutoTokenizer.from_pretrained(export_model(tiny_policy(), codec, tmp_path / "model", card={}))
    prompt = codec.template.render("<think>2+2")
    parsed = tokenizer.parse_response(written, prefix=prompt)
    assert parsed == {"role": "assistant", "thinking": "2+2=4", "content": "4"}
    unfinished = tokenizer.parse_response(written.partition("=")[0], prefix=prompt)
    assert unfinished == {"role": "assistant", "thinking": "2+2"}


def test_generation_defaults_are_the_papers_evaluation(tmp_path: Path) -> None:
    codec = mini_codec(stop=("</answer>",))
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card={})
    defaults = GenerationConfig.from_pretrained(folder)
    assert (defaults.do_sample, defaults.temperature, defaults.top_p) == (True, 0.6, 0.95)
    assert defaults.top_k == 0  # else transformers samples from the likeliest 50, and vLLM from all
    assert defaults.eos_token_id == [2, 6]
    assert (defaults.pad_token_id, defaults.bos_token_id) == (0, 1)


def test_the_card_stands_beside_the_weights(codec: Codec, tmp_path: Path) -> None:
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card=CARD)
    expected = {**CARD, "template": "mini", "template_fingerprint": codec.fingerprint()}
    assert read_card(folder) == expected
    assert json.loads((folder / "lightning_r1.json").read_text()) == expected


def test_a_foreign_model_has_no_card(tmp_path: Path) -> None:
    assert read_card(tmp_path) == {}
    assert read_card(str(tmp_path / "nowhere")) == {}


def test_a_previous_export_is_replaced_whole(codec: Codec, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export_model(tiny_policy("llama"), codec, folder, card={"steps": 1})
    (folder / "left_over.txt").write_text("of the last export")
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "left_over.txt").write_text("of an export that was interrupted")

    export_model(tiny_policy("qwen3"), codec, folder, card={"steps": 2})

    assert read_card(folder)["steps"] == 2
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "qwen3"
    assert not list(folder.glob("left_over*"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_export_leaves_the_previous_one(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export_model(tiny_policy(), codec, tmp_path / "model", card={"steps": 1})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(type(codec.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        export_model(tiny_policy(seed=1), codec, folder, card={"steps": 2})

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_parents_are_made(codec: Codec, tmp_path: Path) -> None:
    folder = export_model(tiny_policy(), codec, tmp_path / "run" / "export" / "model", card={})
    assert read_card(folder)["template"] == "mini"


def test_the_export_does_not_change_the_policy(codec: Codec, tmp_path: Path) -> None:
    policy = tiny_policy().train()
    before = {name: values.clone() for name, values in policy.state_dict().items()}
    habits = policy.model.generation_config.to_dict()

    export_model(policy, codec, tmp_path / "model", card={})

    assert policy.model.training
    assert policy.model.generation_config.to_dict() == habits
    for name, values in policy.state_dict().items():
        torch.testing.assert_close(values, before[name], rtol=0, atol=0)
