"""Making models: from a folder, from scratch, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.models import tiny_model
from lightning_r1.models import load
from lightning_r1.models.load import build_model, context_length, hollow_model, load_model
from lightning_r1.models.tokenizer import number_tokenizer

SMALL = {
    "model_type": "qwen2",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
}
HEADS = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
WITH_DROPOUT = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": 1},
    "phi": {**HEADS, "num_key_value_heads": 2, "intermediate_size": 24},
    "phi3": {**HEADS, "num_key_value_heads": 2, "intermediate_size": 24},
    "gpt_neox": {**HEADS, "intermediate_size": 24},
    "falcon": HEADS,
    "starcoder2": {**HEADS, "num_key_value_heads": 1, "intermediate_size": 24},
    "opt": {**HEADS, "ffn_dim": 24, "word_embed_proj_dim": 16},
}


def dropouts(model: nn.Module) -> list[float]:
    """Every dropout of a model: modules, and the numbers that functions are called with."""
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in model.modules():
        for name in ("attention_dropout", "residual_dropout", "embedding_dropout", "dropout"):
            value = getattr(module, name, None)
            if isinstance(value, float):
                found.append(value)
    return found


def test_a_model_from_scratch_fits_the_tokenizer() -> None:
    tokenizer = number_tokenizer()
    model = build_model(SMALL, tokenizer)
    config = model.config
    assert (config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id) == (136, 0, 1, 2)
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("qwen2", 16, 1)
    assert model.dtype == torch.float32
    assert config._attn_implementation == "sdpa"


def test_weights_are_drawn_from_torchs_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_model(SMALL, number_tokenizer()).get_input_embeddings().weight

    torch.testing.assert_close(weights(3), weights(3), rtol=0, atol=0)
    assert not torch.equal(weights(3), weights(4))


def test_the_architecture_is_not_changed() -> None:
    architecture = dict(SMALL)
    build_model(architecture, number_tokenizer())
    assert architecture == SMALL


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    wanted = getattr(torch, dtype)
    model = build_model(SMALL, number_tokenizer(), dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {wanted}
    tiny_model("qwen2").save_pretrained(tmp_path)
    assert load_model(tmp_path, dtype=dtype).dtype == wanted


def test_a_folder_loads_as_it_was_saved(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    for name, values in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], values, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float8"}, r"model\.dtype='float8': expected one of float32, bfloat16, float16"),
        ({"attention": "eager"}, r"model\.attention='eager': expected auto, flash or sdpa"),
    ],
)
def test_unknown_options_are_refused_before_anything_is_fetched(
    fields: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*args: object, **kwargs: object) -> None:
        raise AssertionError("the hub was asked before the options were checked")

    with pytest.raises(ValueError, match=message):
        build_model(SMALL, number_tokenizer(), **fields)
    monkeypatch.setattr(load.AutoConfig, "from_pretrained", reached)
    with pytest.raises(ValueError, match=message):
        load_model("some-owner/some-model", **fields)


@pytest.mark.parametrize("path", ["some-owner/some-model", "some-model"])
def test_a_hub_id_is_handed_on_untouched(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    config = tiny_model("qwen2").config

    def config_of(name: str, **kwargs: object) -> Any:
        asked.append(name)
        return config

    def model_of(name: str, **kwargs: object) -> str:
        asked.append(name)
        return "the model"

    monkeypatch.setattr(load.AutoConfig, "from_pretrained", config_of)
    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", model_of)

    assert load_model(path) == "the model"
    assert asked == [path, path]


@pytest.mark.parametrize("model_type", WITH_DROPOUT)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_dropout_is_set_everywhere(model_type: str, dropout: float) -> None:
    model = build_model({"model_type": model_type, **WITH_DROPOUT[model_type]}, number_tokenizer(), dropout=dropout)
    found = dropouts(model)
    assert found, "this architecture was chosen because it has dropout"
    assert set(found) == {dropout}


def test_a_loaded_models_dropout_is_replaced(tmp_path: Path) -> None:
    tiny_model("gpt2", resid_pdrop=0.3, attn_pdrop=0.3, embd_pdrop=0.3).save_pretrained(tmp_path)
    assert set(dropouts(load_model(tmp_path))) == {0.0}
    assert set(dropouts(load_model(tmp_path, dropout=0.2))) == {0.2}


def test_capped_attention_scores_are_not_silently_uncapped(tmp_path: Path) -> None:
    # Gemma 2 caps its attention scores, and torch's kernel has no such cap
    capped = tiny_model("gemma2", attn_logit_softcapping=1.0)
    capped.save_pretrained(tmp_path)
    capped.set_attn_implementation("eager")
    ids = torch.randint(3, 124, (1, 12))
    refusal = ""
    try:
        model = load_model(tmp_path, attention="sdpa")
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert "attn_logit_softcapping" in refusal
    else:
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, capped(ids).logits, atol=1e-4, rtol=0)


def test_a_context_is_the_one_that_is_said(tmp_path: Path) -> None:
    rotary, learned = tmp_path / "rotary", tmp_path / "learned"
    for family, folder in (("qwen2", rotary), ("gpt2", learned)):
        tiny_model(family).config.save_pretrained(folder)
    own = context_length(rotary)
    assert hollow_model(rotary).config.max_position_embeddings == own
    assert hollow_model(rotary, context=9999).config.max_position_embeddings == 9999
    assert (context_length(rotary, 9999), context_length(rotary, None)) == (9999, own)
    with pytest.raises(ValueError, match=r"model\.context=9999: the positions of gpt2 are learned .* set it to null"):
        hollow_model(learned, context=9999)
