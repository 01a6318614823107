"""GRPO on an adapter: the reference is the policy's own base, and no second model is held."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from helpers.adapters import adapted_policy
from helpers.logs import Memory
from helpers.models import tiny_model
from helpers.phases import fit, scripted_grpo
from lightning_r1.models.adapter_reference import as_reference, keep_reference, refresh_reference
from lightning_r1.models.adapter_state import check_base
from lightning_r1.models.codec import Codec
from lightning_r1.models.identity import Base
from lightning_r1.modules.grpo import GRPO

IDS = torch.arange(3, 123).view(6, -1)


@pytest.fixture
def grpo(codec: Codec) -> Callable[..., GRPO]:
    return lambda **algorithm: scripted_grpo(codec, policy=adapted_policy(move=False), **algorithm)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


def trained(module: GRPO) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.policy.named_parameters() if p.requires_grad}


def with_a_second_model(module: GRPO) -> GRPO:
    """The reference as a copy of the whole policy, which :class:`GRPO` holds where the whole model trains."""
    module.reference = copy.deepcopy(module.policy).eval().requires_grad_(False)
    return module


def test_switched_off_the_policy_is_its_base() -> None:
    model = adapted_policy().model
    moved, flags = logits(model), [parameter.requires_grad for parameter in model.parameters()]
    with as_reference(model):
        torch.testing.assert_close(logits(model), logits(tiny_model("qwen3")), atol=0, rtol=0)
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
    torch.testing.assert_close(logits(model), moved, atol=0, rtol=0)
    with pytest.raises(KeyError), as_reference(model):
        raise KeyError
    torch.testing.assert_close(logits(model), moved, atol=0, rtol=0)


def test_a_kept_reference_stays_until_it_is_refreshed() -> None:
    model = adapted_policy().model
    kept = logits(model)
    keep_reference(model)
    torch.testing.assert_close(logits(model), kept, atol=0, rtol=0)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in model.named_parameters() if ".lora_" in name and ".default." in name}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter += 0.05
    moved = logits(model)
    assert not torch.equal(moved, kept)
    for expected in (kept, moved):
        with as_reference(model):
            torch.testing.assert_close(logits(model), expected, atol=0, rtol=0)
        torch.testing.assert_close(logits(model), moved, atol=0, rtol=0)
        refresh_reference(model)


@pytest.mark.parametrize("every", [0, 3])
def test_no_second_model_and_the_numbers_of_one(every: int, grpo: Any, tmp_path: Path) -> None:
    """Bit for bit the run that holds a second model, whose reference is refreshed before the third rollout."""
    options = {"kl_coef": 0.5, "reference_refresh_steps": every, "minibatches_per_rollout": 2}
    ours, theirs = grpo(**options), with_a_second_model(grpo(**options))
    base = sum(parameter.numel() for parameter in tiny_model("qwen3").parameters())
    adapter = sum(parameter.numel() for parameter in trained(ours).values())
    assert ours.reference is None
    assert sum(parameter.numel() for parameter in ours.parameters()) == base + adapter * (2 if every else 1)
    ran = Memory(), Memory()
    trainer = fit(ours, steps=6, folder=tmp_path, loggers=[ran[0]])
    fit(theirs, steps=6, folder=tmp_path, loggers=[ran[1]])
    stepped = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert stepped == {id(parameter) for parameter in ours.policy.parameters() if parameter.requires_grad}

    kl = ran[0].column("policy/kl_ref")
    assert kl == ran[1].column("policy/kl_ref")
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert kl[3] > 1e-5
    assert (kl[4] < 1e-9) == bool(every), "refreshed before the rollout of step 4, whose first update is on policy"
    assert ours.reference_step == theirs.reference_step == (4 if every else 0)
    assert all(torch.equal(value, trained(theirs)[name]) for name, value in trained(ours).items())


def test_the_base_does_not_move(grpo: Any, tmp_path: Path) -> None:
    module = grpo(kl_coef=0.1)
    fit(module, steps=2, folder=tmp_path)
    base = dict(tiny_model("qwen3").named_parameters())
    for name, parameter in module.policy.model.named_parameters():
        if ".lora_" not in name:
            assert torch.equal(parameter, base[name.replace(".base_layer", "")])
    assert not torch.equal(logits(module.policy.model), logits(tiny_model("qwen3")))


def test_a_checkpoint_goes_on_with_the_reference_and_on_its_base_alone(grpo: Any, tmp_path: Path) -> None:
    options = {"kl_coef": 0.5, "reference_refresh_steps": 3, "minibatches_per_rollout": 2}
    whole = grpo(**options)
    fit(whole, steps=7, folder=tmp_path)
    half = grpo(**options)
    trainer = fit(half, steps=5, folder=tmp_path)  # after the refresh, in the middle of a rollout
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert {".".join(name.split(".")[-3:-1]) for name in saved["state_dict"]} == {
        f"lora_{part}.{which}" for part in "AB" for which in ("default", "reference")
    }
    resumed = grpo(**options)
    fit(resumed, steps=7, folder=tmp_path, resume=tmp_path / "half.ckpt")
    assert all(torch.equal(value, trained(resumed)[name]) for name, value in trained(whole).items())

    other = grpo(**options)
    other.policy.base = Base("org/other", "f" * 12)
    with pytest.raises(ValueError, match=r"model\.path=org/other: the checkpoint's adapter stands on another base"):
        fit(other, steps=7, folder=tmp_path, resume=tmp_path / "half.ckpt")


def test_bases_are_told_apart_by_content() -> None:
    one, moved = {"path": "a", "fingerprint": "1"}, {"path": "b", "fingerprint": "1"}
    check_base(None, None)
    check_base(one, moved)
    with pytest.raises(ValueError, match=r"model\.adapter: the checkpoint holds an adapter, this run trains none"):
        check_base(one, None)
    with pytest.raises(ValueError, match=r"model\.adapter: the checkpoint holds a whole model, this run trains one"):
        check_base(None, one)


def test_a_phase_ends_with_both_folders(grpo: Any, tmp_path: Path) -> None:
    module: L.LightningModule = grpo()
    module.export(tmp_path / "model", card={})
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert (tmp_path / "model" / "model.safetensors").is_file()
