"""A model that is converted has the positions that one has which is loaded in that type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.models import tiny_policy
from helpers.prompts import mini_codec
from helpers.quick import quick_rl, random_base
from lightning_r1.callbacks.console import quiet
from lightning_r1.config.build import build
from lightning_r1.models.exact_buffers import ExactBuffers
from lightning_r1.models.export import export_model
from lightning_r1.models.load import load_model


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma2"])
def test_a_converted_model_has_the_angles_of_one_that_is_loaded_so(family: str, tmp_path: Path) -> None:
    policy = tiny_policy(family)
    folder = export_model(policy, mini_codec(), tmp_path / "model", card={})
    loaded = load_model(folder, dtype="bfloat16", attention="auto")
    policy.to(torch.bfloat16)
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    ours, theirs = dict(policy.model.named_buffers()), dict(loaded.named_buffers())
    assert ours.keys() == theirs.keys()
    for name, buffer in theirs.items():
        assert torch.equal(ours[name].to(buffer.dtype), buffer), name
    far = torch.tensor([[4000, 4001]])
    hidden = torch.zeros(1, 2, 1, dtype=torch.bfloat16)
    turned = [model.base_model.rotary_emb(hidden, far)[0] for model in (policy.model, loaded)]
    assert torch.equal(*turned)


def test_training_in_bfloat16_leaves_them(tmp_path: Path) -> None:
    quiet()
    run = build(
        quick_rl(
            tmp_path, random_base(tmp_path / "base"), "trainer.precision=bf16-true", "eval.sets=null",
            "trainer.max_steps=1", "algo.kl_coef=0.01",
        )
    )  # fmt: skip
    before = {name: buffer.clone() for name, buffer in run.module.named_buffers() if "inv_freq" in name}
    run.trainer.fit(run.module, run.datamodule)
    after = dict(run.module.named_buffers())
    assert next(run.module.policy.parameters()).dtype == torch.bfloat16
    assert any(name.startswith("reference.") for name in before)
    assert any((buffer != buffer.bfloat16()).any() for buffer in before.values())
    assert all(torch.equal(after[name], buffer) for name, buffer in before.items())


def test_only_what_would_be_rounded_and_no_checkpoint_holds_is_kept() -> None:
    class Some(ExactBuffers):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Module()
            self.inner.register_buffer("made", torch.rand(3), persistent=False)
            self.inner.register_buffer("count", torch.arange(3), persistent=False)
            self.inner.register_buffer("learned", torch.rand(3))

    some = Some().to(torch.bfloat16)
    assert [buffer.dtype for buffer in some.buffers()] == [torch.float32, torch.int64, torch.bfloat16]
    assert some.double().inner.made.dtype == torch.float64
    assert some.to("meta").inner.made.is_meta
