"""When a model gets flash attention, and what is said where it was asked for and cannot run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from helpers.models import tiny_model
from lightning_r1.config.build_policy import computes_in
from lightning_r1.models import flash
from lightning_r1.models.flash import implementation
from lightning_r1.models.load import build_model, hollow_model, load_model
from lightning_r1.models.tokenizer import number_tokenizer

SMALL = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
OBSTACLES = {
    "cuda": r"it needs a CUDA GPU, and torch finds none",
    "type": r"it calculates in bfloat16 or float16, not in float32 \(set model\.dtype=bfloat16; or with float32 "
    r"weights parallel=fsdp parallel\.mixed_precision=bf16\)",
    "library": r"flash-attn is not installed \(pip install 'lightning-r1\[flash\]'\)",
    "broken": r"flash-attn is installed and cannot be imported: undefined symbol: x \(build it anew .*r1\[flash",
}


def setting(obstacle: str | None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine with a GPU and flash-attn, but for the obstacle; returns the type to calculate in."""

    def importing(name: str) -> ModuleType:
        if obstacle == "broken":
            raise ImportError("undefined symbol: x\nmore")
        return ModuleType(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: obstacle != "cuda")
    monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: None if obstacle == "library" else object())
    monkeypatch.setattr(flash.importlib, "import_module", importing)
    return "float32" if obstacle == "type" else "bfloat16"


@pytest.mark.parametrize("obstacle", [*OBSTACLES, None])
def test_flash_runs_where_nothing_is_in_its_way(obstacle: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = setting(obstacle, monkeypatch)
    assert implementation("sdpa", kind) == "sdpa"
    assert implementation("auto", kind) == ("sdpa" if obstacle else "flash_attention_2")
    if obstacle is None:
        assert implementation("flash", kind) == "flash_attention_2"
        return
    with pytest.raises(
        ValueError, match=rf"^model\.attention=flash: {OBSTACLES[obstacle]}.*Or set model\.attention=sdpa"
    ):
        implementation("flash", kind)


def test_all_that_is_missing_is_said_at_once() -> None:
    """Here, on a machine without a GPU; whoever loads or makes a model that way reads it."""
    if torch.cuda.is_available() or "flash_attn" in sys.modules:
        pytest.skip("this machine may run flash attention")
    wanted = f"model.attention=flash: {OBSTACLES['cuda']}; {OBSTACLES['type']}; {OBSTACLES['library']}"
    with pytest.raises(ValueError, match=wanted):
        build_model(SMALL, number_tokenizer(), attention="flash")
    with pytest.raises(ValueError, match=wanted):
        load_model("some-owner/some-model", attention="flash")
    assert build_model(SMALL, number_tokenizer(), attention="auto").config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"trainer": {"precision": "32-true"}}, "float32"),
        ({"trainer": {"precision": "bf16-mixed"}}, "float32"),  # outside of the update there is no autocast
        ({"trainer": {"precision": "bf16-true"}}, "bfloat16"),
        ({"parallel": {"mixed_precision": "bf16"}, "trainer": {"precision": "32-true"}}, "bfloat16"),
        ({"parallel": {"mixed_precision": None}}, "float32"),
    ],
)
def test_float32_weights_that_calculate_in_bfloat16(config: dict, expected: str) -> None:
    assert computes_in({"model": {"dtype": "float32"}, **config}) == expected
    assert computes_in({"model": {"dtype": "bfloat16"}, **config}) == "bfloat16"


def test_what_a_model_calculates_in_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model("qwen2").save_pretrained(tmp_path)
    asked: list[tuple[str, str]] = []

    def choose(attention: str, kind: str) -> str:
        asked.append((attention, kind))
        return "sdpa"

    monkeypatch.setattr("lightning_r1.models.load.implementation", choose)
    for make in (load_model, hollow_model):
        model = make(tmp_path, attention="flash", dtype="float32", computes_in="bfloat16")
        assert model.dtype == torch.float32
    build_model(SMALL, number_tokenizer(), attention="auto", dtype="float16")
    assert asked == [("flash", "bfloat16")] * 2 + [("auto", "float16")]
