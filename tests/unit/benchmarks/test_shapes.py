from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_r1.benchmarks.plot import bars, curves
from lightning_r1.benchmarks.shapes import random_model, shape_config
from lightning_r1.models.tokenizer import load_tokenizer


def test_a_folder_that_everything_loads(tmp_path: Path) -> None:
    folder = random_model("tiny", tmp_path / "model", dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight.shape == (512, 64)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer("2+2=ü").input_ids) == "2+2=ü"
    assert tokenizer.eos_token_id == model.config.eos_token_id == 256
    written = (folder / "model.safetensors").stat().st_mtime_ns
    random_model("tiny", folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ("qwen2_5_0_5b", 494_032_768),
        ("qwen2_5_1_5b", 1_543_714_304),
        ("qwen2_5_3b", 3_085_938_688),
        ("qwen2_5_7b", 7_615_616_512),
        ("llama3_1_8b", 8_030_261_248),
    ],
)
def test_as_many_parameters_as_the_published_ones(shape: str, parameters: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape_config(shape))
    assert model.num_parameters() == parameters


def test_an_unknown_shape_is_told_its_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmark\.shape=huge: expected one of tiny, small, middle, qwen2_5_0_5b"):
        random_model("huge", tmp_path)


def test_pictures_are_written(tmp_path: Path) -> None:
    bars(tmp_path / "a" / "bars.png", {"tokens/s": {"ours": 3.0, "TRL": 1.0}, "GiB": {"ours": 1.0}}, title="x")
    curves(tmp_path / "curves.png", {"s": {"ours": ([1, 2], [3.0, 4.0])}}, title="x", x_label="tokens")
    for name in ("a/bars.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
