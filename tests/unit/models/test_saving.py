"""Layers that are computed again, offloaded or compiled give the same gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from helpers.models import FAMILIES, tiny_model, tiny_policy
from lightning_r1.models import saving
from lightning_r1.models.layout import pack
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.models.saving import checkpoint_activations

PROMPTS, COMPLETIONS, WHOSE = [4, 4, 4, 2], [3, 6, 1, 5], [0, 0, 0, 1]


def gradients(policy: Policy, *, packed: bool) -> list[torch.Tensor]:
    policy.zero_grad()
    make = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 130, (4, 10), generator=make)
    ids[1, :4] = ids[2, :4] = ids[0, :4]
    mask = torch.arange(6) < torch.tensor(COMPLETIONS)[:, None]
    layout = pack(PROMPTS, COMPLETIONS, WHOSE) if packed else None
    torch.manual_seed(1)  # of dropout
    scores = policy(ids, torch.tensor(PROMPTS), mask, layout=layout)
    (scores.logprobs.sum() + scores.entropy.sum()).backward()
    return [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "shared"])
@pytest.mark.parametrize("kind", [True, "offload"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma2"])
def test_computed_again_is_the_same(family: str, kind: Any, packed: bool) -> None:
    policy = tiny_policy(family).train()
    expected = gradients(policy, packed=packed)
    checkpoint_activations(policy.model, kind)
    layers: list[int] = []
    first = policy.model.base_model.layers[0].mlp if family != "gpt2" else policy.model.base_model.h[0].mlp
    first.register_forward_pre_hook(lambda *_: layers.append(1))
    again = gradients(policy, packed=packed)
    assert len(layers) == 2, "once in the forward, once in the backward"
    for one, other in zip(again, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_dropout_falls_on_the_same_numbers() -> None:
    policy = tiny_policy("gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.0).train()
    expected = gradients(policy, packed=False)
    checkpoint_activations(policy.model, True)
    for one, other in zip(gradients(policy, packed=False), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_only_inputs_of_layers_are_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    real = torch.autograd.graph.save_on_cpu

    class Watched(real):  # type: ignore[misc, valid-type]
        def __init__(self, **said: Any) -> None:
            super().__init__(**said)
            pack = self.pack_hook
            self.pack_hook = lambda tensor: (seen.append(tensor.shape), pack(tensor))[1]

    monkeypatch.setattr(saving, "save_on_cpu", Watched)
    policy = tiny_policy("qwen3").train()
    checkpoint_activations(policy.model, "offload")
    gradients(policy, packed=False)
    hidden = [shape for shape in seen if shape == (4, 10, 32)]
    assert len(hidden) == 2  # two layers
    assert sum(shape.numel() for shape in seen) == 2 * 4 * 10 * 32


def test_unknown_kinds_are_refused_and_false_changes_nothing() -> None:
    model = tiny_model("qwen3")
    checkpoint_activations(model, False)
    assert not model.is_gradient_checkpointing
    with pytest.raises(ValueError, match="activation_checkpointing='yes': expected false, true or offload"):
        checkpoint_activations(model, "yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "shared"])
def test_compiled_layers_give_the_same_gradients(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's own backend: what is traced, and not how well it is translated."""
    compiled: list[Any] = []
    real = torch.compile

    def traced(function: Any, **said: Any) -> Any:
        compiled.append(said)
        return real(function, backend="eager", **said)

    monkeypatch.setattr(torch, "compile", traced)
    plain = tiny_policy("qwen3").train()
    policy = Policy(copy.deepcopy(plain.model), compiled=True).train()
    with evaluating(policy):
        ids = torch.full((1, 4), 5)
        policy(ids, torch.tensor([2]), torch.ones(1, 2, dtype=torch.bool))
    assert not compiled, "only training is compiled"
    for one, other in zip(gradients(policy, packed=packed), gradients(plain, packed=packed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert compiled == [{"dynamic": True}] * 2
    other = copy.deepcopy(policy)
    assert not other.compiled_layers._compiled, "a copy's layers are its own"
    assert policy.state_dict().keys() == plain.state_dict().keys()
