"""An adapted model says what the plain one with merged weights says, however it is asked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from helpers.adapters import adapted_model, adapted_policy, move_adapter
from helpers.models import VOCABULARY, tiny_model, tiny_policy
from helpers.prompts import prompts_of_lengths
from lightning_r1.models.adapter import AdapterSettings, adapted_layers, add_adapter, trainable_parameters
from lightning_r1.models.codec import Codec
from lightning_r1.models.decoder import Decoder, ModelStep
from lightning_r1.models.layout import pack
from lightning_r1.models.lean import LeanStep, can_be_lean
from lightning_r1.models.live_weights import live_weights
from lightning_r1.models.load import build_model, hollow_model
from lightning_r1.models.policy import Policy
from lightning_r1.models.saving import checkpoint_activations
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.types import Sampling

FAMILIES = ("qwen3", "llama", "gpt2", "gemma2", "granite", "phi3")
PROMPTS, COMPLETIONS, WHOSE = [7, 7, 7, 4], [3, 9, 1, 6], [0, 0, 0, 1]


def naively_merged(model: Any, family: str) -> Any:
    """The plain model with W + alpha / r * B A, from the adapted one's parameters by their names alone."""
    plain, state = tiny_model(family), dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            owner = name.removesuffix(".weight")
            if f"{owner}.lora_A.default.weight" in state:
                low, high = (state[f"{owner}.lora_{part}.default.weight"] for part in "AB")
                added = 8 / 4 * high @ low
                weight += added if added.shape == weight.shape and family != "gpt2" else added.t()
    return plain


def rows() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(3, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(2))
    ids[1, :7] = ids[2, :7] = ids[0, :7]
    return ids, torch.tensor(PROMPTS), torch.arange(9) < torch.tensor(COMPLETIONS)[:, None]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_merged_models(family: str) -> None:
    policy = adapted_policy(family)
    plain = Policy(naively_merged(policy.model, family)).eval()
    scores, expected = policy(*rows(), temperature=0.7), plain(*rows(), temperature=0.7)
    torch.testing.assert_close(scores.logprobs, expected.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.entropy, expected.entropy, atol=1e-5, rtol=0)
    base = tiny_policy(family)(*rows(), temperature=0.7)
    assert (scores.logprobs - base.logprobs).abs().max() > 1e-2, "the adapter does something"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_sent_to_other_programs_is_merged_and_the_weights_stay(family: str) -> None:
    model = adapted_model(family)
    before = copy.deepcopy(model.state_dict())
    sent, expected = dict(live_weights(model, torch.float32)), dict(naively_merged(model, family).state_dict())
    for name, tensor in sent.items():
        torch.testing.assert_close(tensor, expected.pop(name), atol=1e-6, rtol=0)
    assert set(expected) <= {"lm_head.weight"}, "tied to what was sent"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    half = dict(live_weights(model, torch.bfloat16))
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in sent.items()), "rounded once, at the end"


def test_merging_is_pefts() -> None:
    """PEFT wraps a model of its own, and merges it."""
    model = adapted_model("qwen3")
    theirs = get_peft_model(tiny_model("qwen3"), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    move_adapter(theirs)
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if ".lora_" in name:
                parameter.copy_(ours[name.removeprefix("base_model.model.")])
    for name, tensor in theirs.merge_and_unload().state_dict().items():
        if name != "lm_head.weight":
            torch.testing.assert_close(dict(live_weights(model, torch.float32))[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared"])
def test_packed_rows_equal_padded_ones(shared: bool) -> None:
    def scored(layout: Any) -> list[Tensor]:
        policy = adapted_policy().train()
        scores = policy(*rows(), layout=layout)
        scores.logprobs.sum().backward()
        return [scores.logprobs, *(p.grad for p in policy.parameters() if p.requires_grad)]

    for packed, padded in zip(scored(pack(PROMPTS, COMPLETIONS, WHOSE if shared else None)), scored(None), strict=True):
        torch.testing.assert_close(packed, padded, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [True, "offload"])
def test_layers_computed_again_give_the_same_gradients(kind: Any) -> None:
    def gradients(kind: Any) -> list[Tensor]:
        policy = adapted_policy(dropout=0.0).train()
        checkpoint_activations(policy.model, kind)
        policy(*rows()).logprobs.sum().backward()
        return [p.grad for p in policy.parameters() if p.requires_grad]

    plain, again = gradients(False), gradients(kind)
    assert len(plain) == 28
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_only_the_adapter_trains_and_begins_as_nothing() -> None:
    model = adapted_model(move=False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(trained) == 2 * 2 * 7, "two matrices of seven products in two layers"
    ids = rows()[0]
    torch.testing.assert_close(model(ids).logits, tiny_model("qwen3")(ids).logits, atol=0, rtol=0)


def test_a_hollow_model_has_as_many_weights_that_train(tmp_path: Any) -> None:
    tiny_model("qwen3").save_pretrained(tmp_path)
    hollow = hollow_model(tmp_path)
    add_adapter(hollow, AdapterSettings(rank=4))
    assert {parameter.device.type for parameter in hollow.parameters()} == {"meta"}
    real = adapted_model()
    by_hand = sum(4 * (layer.in_features + layer.out_features) for _, layer in adapted_layers(real))
    assert trainable_parameters(hollow) == trainable_parameters(real) == by_hand


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_has_the_models_type_and_torchs_seed(dtype: str) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        model = build_model({"model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 1}, number_tokenizer())
        model = model.to(getattr(torch, dtype))
        torch.manual_seed(seed)
        add_adapter(model, AdapterSettings(targets=["q_proj", "down_proj"]))
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    one = drawn(3)
    assert {parameter.dtype for parameter in one.values()} == {getattr(torch, dtype)}
    assert {name.split(".")[-4] for name in one} == {"q_proj", "down_proj"}
    assert all(torch.equal(one[name], other) for name, other in drawn(3).items())
    assert not all(torch.equal(one[name], other) for name, other in drawn(4).items())


def test_state_is_the_adapter_alone() -> None:
    policy, other = adapted_policy(), adapted_policy(move=False)
    state = policy.state_dict()
    assert len(state) == 28
    assert all(".lora_" in name for name in state)
    holder = torch.nn.ModuleDict({"policy": other})  # as a phase holds it
    holder.load_state_dict({f"policy.{name}": value for name, value in state.items()})
    torch.testing.assert_close(other(*rows()).logprobs, policy(*rows()).logprobs, atol=0, rtol=0)
    lacking = dict(list(state.items())[1:])
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"model.model.layers.0.*lora_A"):
        other.load_state_dict(lacking)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(state | {"model.model.layers.9.lora_A": torch.zeros(1)})
    assert len(copy.deepcopy(policy).state_dict()) == 28


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"adapter\.rank=0: expected >= 1"),
        ({"alpha": 0}, r"adapter\.alpha=0: expected > 0, e.g. twice adapter\.rank=4"),
        ({"dropout": 1.0}, r"adapter\.dropout=1\.0: expected a share"),
        ({"targets": "q_proj"}, r"adapter\.targets='q_proj': expected all-linear, or a list"),
        ({"targets": []}, r"adapter\.targets=\[\]: expected all-linear"),
        ({"targets": ["q_prj"]}, r"adapter\.targets=\['q_prj'\]: .*not found"),
        ({"targets": ["lm_head"]}, r"adapter\.targets=\['lm_head'\]: embeddings and output head cannot be adapted"),
        ({"targets": ["embed_tokens"]}, r"embeddings and output head cannot be adapted"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted_model(**settings)


@pytest.mark.parametrize("lengths", [[7, 7], [7, 3]], ids=["equal", "ragged"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_short_way_sees_the_adapter(family: str, lengths: list[int]) -> None:
    policy = adapted_policy(family)
    assert can_be_lean(policy.model)
    prompts = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in lengths]
    tokens = torch.randint(3, VOCABULARY, (5, 4))

    def decode(lean: bool) -> Tensor:
        decoder = Decoder(policy, rows=4, columns=20, pad_id=0, lean=lean)
        assert isinstance(decoder.step, LeanStep if lean else ModelStep)
        decoder.prefill(prompts, range(4), 2)
        decoder.cache.set_lengths([length for length in lengths for _ in range(2)])
        return torch.stack([decoder.step(of_step) for of_step in tokens])

    with torch.no_grad():
        torch.testing.assert_close(decode(True), decode(False), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
@pytest.mark.parametrize("lean", [False, True])
def test_rollouts_are_the_adapted_models(family: str, lean: bool, codec: Codec) -> None:
    """Greedy tokens of the group engine are those of generate, and of the plain merged model."""
    policy = adapted_policy(family)
    plain = Policy(naively_merged(policy.model, family)).eval()
    prompts, greedy = prompts_of_lengths(codec, (4, 9)), Sampling(group_size=2, max_new_tokens=12, temperature=0)
    found = [
        engine.generate(prompts, greedy, seeds=[0, 0])
        for engine in (GroupEngine(policy, codec, lean=lean), HFEngine(policy, codec), HFEngine(plain, codec))
    ]
    ids = [[completion.token_ids for group in groups for completion in group.completions] for groups in found]
    assert ids[0] == ids[1] == ids[2]
    logprobs = [[value for group in groups for c in group.completions for value in c.logprobs] for groups in found]
    torch.testing.assert_close(*map(torch.tensor, logprobs[:2]), atol=2e-5, rtol=0)
    base = HFEngine(tiny_policy(family), codec).generate(prompts, greedy, seeds=[0, 0])
    assert ids[0] != [completion.token_ids for group in base for completion in group.completions]
