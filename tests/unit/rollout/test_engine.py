"""What all engines share: the randomness, the groups, the protocol."""

from __future__ import annotations

import inspect

import pytest
import torch

from helpers.engine import CopyEngine, ScriptedEngine
from helpers.models import tiny_policy
from helpers.prompts import MANY_STOPS, mini_codec, number_prompt, prompts_of_lengths
from lightning_r1.models.codec import Codec
from lightning_r1.rollout.continuous import ContinuousEngine
from lightning_r1.rollout.engine import OtherProgram, RolloutEngine, as_group, seed_for, uniform_draws
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.rollout.vllm import VLLMEngine
from lightning_r1.rollout.vllm_server import VLLMServerEngine
from lightning_r1.types import Sampling


def test_a_seed_is_a_function_of_its_names() -> None:
    # the first 63 bits of sha256(b'[0, "rollout", 1]'): the same in every process and every version
    assert seed_for(0, "rollout", 1) == 4967423041412742878
    seeds = {
        seed_for(run, kind, number) for run in range(3) for kind in ("rollout", "evaluate") for number in range(50)
    }
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_draws_are_uniform_and_differ_between_prompts_and_completions() -> None:
    draws = uniform_draws(list(range(40)), group_size=5, steps=50)

    assert draws.shape == (200, 50)
    assert draws.dtype == torch.float64
    assert ((draws >= 0) & (draws < 1)).all()
    assert draws.unique().numel() == draws.numel()
    # 10,000 draws: a share of 1/10 in each tenth, give or take four standard errors of 0.003
    shares = torch.histc(draws, bins=10, min=0, max=1) / draws.numel()
    torch.testing.assert_close(shares, torch.full((10,), 0.1, dtype=torch.float64), atol=0.012, rtol=0)


def test_draws_of_a_prompt_do_not_depend_on_the_others_nor_on_the_group() -> None:
    together = uniform_draws([11, 12, 13], group_size=3, steps=6)
    torch.testing.assert_close(uniform_draws([12], group_size=3, steps=6), together[3:6], rtol=0, atol=0)
    torch.testing.assert_close(uniform_draws([12], group_size=2, steps=6), together[3:5], rtol=0, atol=0)


def test_draws_leave_torchs_own_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    uniform_draws([1, 2], group_size=2, steps=3)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_group_from_rows() -> None:
    codec = mini_codec(stop=MANY_STOPS)
    prompt = number_prompt(codec, "2?5?1=9", 9)
    stop, eos = codec.tokenizer.convert_tokens_to_ids("!"), codec.tokenizer.eos_token_id
    close = codec.tokenizer.convert_tokens_to_ids("</think>")

    group = as_group(prompt, codec, [([17, stop], [-1.0, -2.0]), ([close, eos], [-3.0, -4.0]), ([17], [-5.0])], 7)

    assert group.prompt is prompt
    assert [completion.token_ids for completion in group.completions] == [(17, stop), (close, eos), (17,)]
    assert [completion.logprobs for completion in group.completions] == [(-1.0, -2.0), (-3.0, -4.0), (-5.0,)]
    assert [completion.finish_reason for completion in group.completions] == ["stop", "stop", "length"]
    assert [completion.text for completion in group.completions] == ["<think>10!", "<think></think>", "<think>10"]
    assert {completion.policy_version for completion in group.completions} == {7}


@pytest.mark.parametrize(
    ("engine", "exact"),
    [
        (GroupEngine, True), (HFEngine, True), (ContinuousEngine, True), (ScriptedEngine, True), (CopyEngine, False),
        (VLLMEngine, False), (VLLMServerEngine, False),
    ],
)  # fmt: skip
def test_engines_follow_the_protocol(engine: type, exact: bool) -> None:
    assert engine.exact is exact
    for method in ("generate", "sync_weights", "sleep", "wake"):
        assert inspect.signature(getattr(engine, method)) == inspect.signature(getattr(RolloutEngine, method))
    if not exact:
        assert inspect.signature(engine.close) == inspect.signature(OtherProgram.close)
        assert inspect.signature(engine).parameters["parity_tolerance"].default


def test_the_scripted_engine_writes_its_script(codec: Codec) -> None:
    engine: RolloutEngine = ScriptedEngine(codec, {"1": ["2+2</think><answer>4</answer><eos>", "2+2"], "2": ["7<eos>"]})
    engine.sync_weights(3)
    prompts = [number_prompt(codec, "2", 7), number_prompt(codec, "1", 4)]

    groups = engine.generate(prompts, Sampling(group_size=3), seeds=[5, 6])

    assert [group.prompt for group in groups] == prompts
    assert [completion.text for completion in groups[0].completions] == ["<think>7"] * 3
    right, cut, again = groups[1].completions
    assert right.text == again.text == "<think>2+2</think><answer>4</answer>"
    assert (right.finish_reason, cut.finish_reason) == ("stop", "length")
    assert cut.logprobs == (-1 / 8, -2 / 8, -3 / 8)
    assert right.policy_version == 3


@pytest.mark.parametrize("kind", [GroupEngine, HFEngine])
def test_each_group_is_given_away_with_its_place_as_soon_as_it_is_whole(kind: type, codec: Codec) -> None:
    options = {"max_rows": 2} if kind is GroupEngine else {}
    engine = kind(tiny_policy(), codec, **options)
    prompts = prompts_of_lengths(codec, [9, 4, 7])  # the group engine begins with the shortest
    told: list[tuple[int, object]] = []

    groups = engine.generate(
        prompts,
        Sampling(group_size=2, max_new_tokens=3),
        seeds=[1, 2, 3],
        progress=lambda done, total: told.append((done, total)),
        finished=lambda place, group: told.append((-place - 1, group)),
    )

    places = [-place - 1 for place, _ in told if place < 0]
    assert sorted(places) == [0, 1, 2]
    assert all(group is groups[-place - 1] for place, group in told if place < 0)
    assert [place < 0 for place, _ in told] == [True, False] * 3, "not only at the end"
