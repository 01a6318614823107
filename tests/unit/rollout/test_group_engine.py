"""The group engine: its numbers are the model's, for every family, and nothing is computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.models import FAMILIES, dense_logprobs, tiny_policy
from helpers.prompts import MANY_STOPS, mini_codec, prompts_of_lengths
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Group, Sampling

LENGTHS = {"equal": (9, 9, 9), "different": (4, 12, 7)}
SAMPLING = Sampling(group_size=4, max_new_tokens=16, temperature=0.8)


@pytest.fixture
def stopping() -> Codec:
    """About one token in ten stops, so that rows of a random model end at different times."""
    return mini_codec(stop=MANY_STOPS)


def tokens_of(groups: Sequence[Group]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group.completions] for group in groups]


def watch_forwards(policy: Policy) -> list[tuple[int, int]]:
    """The shape of ``input_ids`` of every forward from now on; a model that is watched is never decoded lean."""
    shapes: list[tuple[int, int]] = []
    policy.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_those_of_a_forward_without_cache(family: str, lengths: tuple[int, ...], stopping: Codec) -> None:
    policy = tiny_policy(family)
    prompts = prompts_of_lengths(stopping, lengths)

    groups = GroupEngine(policy, stopping).generate(prompts, SAMPLING, seeds=[1, 2, 3])

    assert [group.prompt for group in groups] == prompts
    assert len({len(ids) for of_group in tokens_of(groups) for ids in of_group}) > 2, "rows end at different times"
    for group in groups:
        assert len(group.completions) == SAMPLING.group_size
        for completion in group.completions:
            prompt_ids, token_ids = group.prompt.token_ids, completion.token_ids
            captured = torch.tensor(completion.logprobs)
            by_hand = dense_logprobs(policy.model, prompt_ids, token_ids, temperature=SAMPLING.temperature)
            torch.testing.assert_close(captured.double(), by_hand, atol=1e-5, rtol=0)
            with torch.no_grad():
                scores = policy(
                    torch.tensor([prompt_ids + token_ids]),
                    torch.tensor([len(prompt_ids)]),
                    torch.ones(1, len(token_ids), dtype=torch.bool),
                    temperature=SAMPLING.temperature,
                )
            torch.testing.assert_close(captured, scores.logprobs[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_generate(family: str, lengths: tuple[int, ...], codec: Codec) -> None:
    policy = tiny_policy(family)
    prompts = prompts_of_lengths(codec, lengths)

    groups = GroupEngine(policy, codec).generate(
        prompts, Sampling(group_size=2, max_new_tokens=12, temperature=0), seeds=[0, 0, 0]
    )

    for prompt, of_group in zip(prompts, tokens_of(groups), strict=True):
        row = torch.tensor([prompt.token_ids])
        output = policy.model.generate(
            row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=codec.tokenizer.eos_token_id,
            pad_token_id=codec.pad_id,
        )
        expected = tuple(output[0, row.shape[1] :].tolist())
        assert of_group == [expected, expected]


@pytest.mark.parametrize("family", ["qwen2", "mistral_window", "gpt2"])
def test_tokens_do_not_depend_on_the_batch(family: str, stopping: Codec) -> None:
    policy = tiny_policy(family)
    prompts, seeds = prompts_of_lengths(stopping, [4, 12, 7, 7, 5]), [5, 6, 7, 8, 9]

    together = tokens_of(GroupEngine(policy, stopping).generate(prompts, SAMPLING, seeds=seeds))

    for max_rows in (1, SAMPLING.group_size, 2 * SAMPLING.group_size + 1):
        engine = GroupEngine(policy, stopping, max_rows=max_rows)
        assert tokens_of(engine.generate(prompts, SAMPLING, seeds=seeds)) == together
    order = [3, 0, 4, 2, 1]
    shuffled = GroupEngine(policy, stopping).generate(
        [prompts[index] for index in order], SAMPLING, seeds=[seeds[index] for index in order]
    )
    assert tokens_of(shuffled) == [together[index] for index in order]
    other_seeds = GroupEngine(policy, stopping).generate(prompts, SAMPLING, seeds=[seed + 10 for seed in seeds])
    assert tokens_of(other_seeds) != together


@pytest.mark.parametrize("family", ["qwen2", "mistral_window", "falcon"])
def test_tokens_do_not_depend_on_when_the_engine_asks_who_has_finished(family: str, stopping: Codec) -> None:
    policy = falcon_policy() if family == "falcon" else tiny_policy(family)
    prompts, seeds = prompts_of_lengths(stopping, [4, 12, 7, 7, 5]), [5, 6, 7, 8, 9]
    sampling = replace(SAMPLING, max_new_tokens=30)
    every_step = GroupEngine(policy, stopping, check_every=1).generate(prompts, sampling, seeds=seeds)
    for check_every, max_rows in ((4, 8), (7, 512), (100, 8)):
        seldom = GroupEngine(policy, stopping, check_every=check_every, max_rows=max_rows)
        assert tokens_of(seldom.generate(prompts, sampling, seeds=seeds)) == tokens_of(every_step)


def falcon_policy() -> Policy:
    """An architecture that keeps its own attention, so that its rows have to be equally long."""
    fields = {"vocab_size": 136, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("falcon", **fields, initializer_range=0.2)
    return Policy(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_rows", [8, 512])
def test_every_prompt_has_its_budget(family: str, max_rows: int, codec: Codec) -> None:
    policy, seeds = tiny_policy(family), [1, 2, 3, 4]
    prompts = prompts_of_lengths(codec, [9, 4, 9, 6])
    budgets = [1, 16, 5, None]
    whole = GroupEngine(policy, codec).generate(prompts, SAMPLING, seeds=seeds)
    limited = [replace(prompt, token_budget=budget) for prompt, budget in zip(prompts, budgets, strict=True)]

    groups = GroupEngine(policy, codec, max_rows=max_rows).generate(limited, SAMPLING, seeds=seeds)

    # a budget cuts a completion and changes nothing in front of the cut
    for all_tokens, tokens, budget in zip(tokens_of(whole), tokens_of(groups), budgets, strict=True):
        assert tokens == [ids[:budget] for ids in all_tokens]
    assert {one.finish_reason for one in groups[0].completions} <= {"length", "stop"}
    assert [group.prompt for group in groups] == limited


@pytest.mark.parametrize("check_every", [1, 5])
@pytest.mark.parametrize("max_rows", [8, 512])
def test_stop_texts_end_completions(check_every: int, max_rows: int, codec: Codec) -> None:
    policy, seeds = tiny_policy(), list(range(6))
    prompts = prompts_of_lengths(codec, [9, 4, 9, 6, 6, 5])
    sampling = Sampling(group_size=4, max_new_tokens=60)
    whole = GroupEngine(policy, codec).generate(prompts, sampling, seeds=seeds)
    texts = [codec.decode(one.token_ids) for group in whole for one in group.completions]
    # two characters that different tokens write, and one token of many characters
    stop = (texts[0][21:23], "<think>")
    watched = watch_forwards(policy)

    groups = GroupEngine(policy, codec, max_rows=max_rows, check_every=check_every).generate(
        prompts, replace(sampling, stop=stop), seeds=seeds
    )

    reasons = set()
    for group, free in zip(groups, whole, strict=True):
        for completion, all_of_it in zip(group.completions, free.completions, strict=True):
            expected = naive_stop(codec, all_of_it.token_ids, stop)
            assert completion.token_ids == all_of_it.token_ids[:expected]
            assert len(completion.logprobs) == len(completion.token_ids)
            met = any(text in codec.decode(completion.token_ids) for text in stop)
            assert completion.finish_reason == ("stop" if met else all_of_it.finish_reason)
            reasons.add(completion.finish_reason)
    assert reasons == {"stop", "length"} or len(watched) < 60
    assert len(tokens_of(groups)[0][0]) < len(tokens_of(whole)[0][0])


def naive_stop(codec: Codec, token_ids: Sequence[int], stop: Sequence[str]) -> int:
    """Tokens up to the one that completes a text, one by one."""
    for end in range(1, len(token_ids) + 1):
        if any(text in codec.decode(token_ids[:end]) for text in stop):
            return end
    return len(token_ids)


def test_rows_that_met_a_stop_text_are_not_decoded_to_the_limit(codec: Codec) -> None:
    policy = tiny_policy()
    prompts = prompts_of_lengths(codec, [6])
    sampling = Sampling(group_size=1, max_new_tokens=64)
    text = codec.decode(GroupEngine(policy, codec).generate(prompts, sampling, seeds=[1])[0].completions[0].token_ids)
    watched = watch_forwards(policy)
    group = GroupEngine(policy, codec).generate(prompts, replace(sampling, stop=(text[5:8],)), seeds=[1])[0]
    assert len(watched) <= len(group.completions[0].token_ids) + 8
    assert len(watched) < 40


def test_completions_of_a_group_differ(stopping: Codec) -> None:
    engine = GroupEngine(tiny_policy(), stopping)
    group = engine.generate(prompts_of_lengths(stopping, [6]), SAMPLING, seeds=[1])[0]
    assert len({completion.token_ids for completion in group.completions}) == SAMPLING.group_size


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_a_prompt_is_prefilled_once(lengths: tuple[int, ...], codec: Codec) -> None:
    policy = tiny_policy()
    shapes = watch_forwards(policy)
    logits: list[int] = []
    head = policy.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, output: logits.append(output[..., 0].numel()))

    GroupEngine(policy, codec).generate(prompts_of_lengths(codec, lengths), SAMPLING, seeds=[1, 2, 3])

    prefills, steps = shapes[:1], shapes[1:]
    assert prefills == [(3, max(lengths))]
    assert {columns for _, columns in steps} == {1}
    assert logits[0] == 3, "of a prompt only the last token's logits are needed"
    assert logits[1:] == [rows for rows, _ in steps]


def test_a_rollout_goes_through_max_rows_by_whole_groups(stopping: Codec) -> None:
    policy = tiny_policy()
    shapes = watch_forwards(policy)
    told: list[int] = []

    engine = GroupEngine(policy, stopping, max_rows=11)
    engine.generate(
        prompts_of_lengths(stopping, [9, 4, 9, 4, 6]),
        Sampling(group_size=4, max_new_tokens=60),
        seeds=range(5),
        finished=lambda place, group: told.append(len(shapes)),
    )

    # two groups of four at first, the shortest prompts: less padding. The others when a whole group's rows are idle
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert prefills[0] == (2, 4)
    assert sum(prompts for prompts, _ in prefills) == 5
    assert len(prefills) > 2, "a group begins while others are being written"
    assert max(rows for rows, _ in shapes) == 8
    assert told[0] < len(shapes) * 2 / 3, "a group is given away long before the last one is whole"


def test_finished_rows_leave_the_batch(stopping: Codec) -> None:
    policy = tiny_policy()
    shapes = watch_forwards(policy)
    sampling = Sampling(group_size=16, max_new_tokens=40)

    groups = GroupEngine(policy, stopping).generate(prompts_of_lengths(stopping, [6, 9, 4]), sampling, seeds=[1, 2, 3])

    completions = [completion for group in groups for completion in group.completions]
    steps = [rows for rows, columns in shapes if columns == 1]
    # the forward behind token t is needed for completions longer than t + 1
    needed = [sum(len(completion.token_ids) > step + 1 for completion in completions) for step in range(len(steps))]
    assert steps[0] <= 48
    assert steps[-1] < 48 / 4
    for rows, running in zip(steps, needed, strict=True):
        assert running <= rows
        assert running > 0.75 * rows, "a quarter of the batch has finished and is still computed"


def test_no_step_is_computed_for_nobody(stopping: Codec) -> None:
    policy = tiny_policy()
    shapes = watch_forwards(policy)

    for max_new_tokens in (80, 3):
        shapes.clear()
        sampling = Sampling(group_size=2, max_new_tokens=max_new_tokens)
        group = GroupEngine(policy, stopping).generate(prompts_of_lengths(stopping, [6]), sampling, seeds=[1])[0]
        # the first token comes from the prefill, and behind the last there is nothing to ask
        assert len(shapes) == max(len(completion.token_ids) for completion in group.completions)
    assert len(shapes) == 3, "the second time, a completion ran into the limit"


def test_completions_end_right_behind_the_stop_token(stopping: Codec) -> None:
    sampling = Sampling(group_size=32, max_new_tokens=12)
    group = GroupEngine(tiny_policy(), stopping).generate(prompts_of_lengths(stopping, [6]), sampling, seeds=[4])[0]

    reasons = {completion.finish_reason for completion in group.completions}
    assert reasons == {"stop", "length"}
    for completion in group.completions:
        stops = [token in stopping.stop_ids for token in completion.token_ids]
        assert not any(stops[:-1])
        assert len(completion.logprobs) == len(completion.token_ids)
        if completion.finish_reason == "stop":
            assert stops[-1]
        else:
            assert len(completion.token_ids) == 12
            assert not stops[-1]


def test_a_completion_of_one_token(stopping: Codec) -> None:
    group = GroupEngine(tiny_policy(), stopping).generate(
        prompts_of_lengths(stopping, [6]), Sampling(group_size=3, max_new_tokens=1), seeds=[4]
    )[0]
    assert [len(completion.token_ids) for completion in group.completions] == [1, 1, 1]


def test_dropout_is_off_and_the_mode_comes_back(codec: Codec) -> None:
    policy = tiny_policy("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    with_grad: list[bool] = []
    policy.model.register_forward_hook(lambda module, args, output: with_grad.append(output.logits.requires_grad))

    group = GroupEngine(policy, codec).generate(prompts_of_lengths(codec, [6]), SAMPLING, seeds=[1])[0]

    assert all(module.training for module in policy.modules())
    assert policy.model.config._attn_implementation == "sdpa"
    assert with_grad
    assert not any(with_grad)
    policy.eval()
    for completion in group.completions:
        expected = dense_logprobs(policy.model, group.prompt.token_ids, completion.token_ids, temperature=0.8)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)


def test_the_mode_comes_back_after_a_failure(codec: Codec) -> None:
    policy = tiny_policy().train()

    def fail(module: torch.nn.Module, args: object) -> None:
        raise RuntimeError("out of memory, say")

    hook = policy.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        GroupEngine(policy, codec).generate(prompts_of_lengths(codec, [6]), SAMPLING, seeds=[1])
    hook.remove()

    assert policy.model.training
    assert policy.model.config._attn_implementation == "sdpa"
    assert torch.is_grad_enabled()


def test_the_current_weights_are_sampled(codec: Codec) -> None:
    policy, prompts = tiny_policy(), prompts_of_lengths(codec, [6])
    engine = GroupEngine(policy, codec)
    before = engine.generate(prompts, SAMPLING, seeds=[1])
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    engine.sync_weights(12)
    after = engine.generate(prompts, SAMPLING, seeds=[1])

    assert {completion.policy_version for completion in before[0].completions} == {0}
    assert {completion.policy_version for completion in after[0].completions} == {12}
    for completion in after[0].completions:
        expected = dense_logprobs(policy.model, prompts[0].token_ids, completion.token_ids, temperature=0.8)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)


def test_progress_counts_completions(codec: Codec) -> None:
    told: list[tuple[int, int]] = []
    engine = GroupEngine(tiny_policy(), codec, max_rows=8)
    engine.generate(
        prompts_of_lengths(codec, [5, 5, 5]), SAMPLING, seeds=[1, 2, 3], progress=lambda *numbers: told.append(numbers)
    )
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert told[-1] == (12, 12)
    assert len(told) > 1


def test_no_prompts_no_groups(codec: Codec) -> None:
    assert GroupEngine(tiny_policy(), codec).generate([], SAMPLING, seeds=[]) == []


STATEFUL = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "qwen3_next": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2},
    "recurrent_gemma": {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48, "num_attention_heads": 4},
}


@pytest.mark.parametrize("model_type", STATEFUL)
def test_architectures_with_another_state_are_refused(model_type: str, codec: Codec) -> None:
    config = AutoConfig.for_model(model_type, vocab_size=124, pad_token_id=0, **STATEFUL[model_type])
    with torch.device("meta"):
        policy = Policy(AutoModelForCausalLM.from_config(config))
    with pytest.raises(ValueError, match=rf"{model_type}.*rollout=hf"):
        GroupEngine(policy, codec)


@pytest.mark.parametrize(
    "model_type",
    [
        "falcon",  # chooses its arithmetic by the implementation's name and never asks the interface
        "doge",  # adds a mask of its own, in floats
    ],
)
def test_attention_with_habits_of_its_own(model_type: str, codec: Codec) -> None:
    fields = {"vocab_size": 124, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(model_type, **fields, initializer_range=0.2)
    policy = Policy(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")).eval()
    groups = GroupEngine(policy, codec).generate(prompts_of_lengths(codec, [5, 9]), SAMPLING, seeds=[1, 2])
    for group in groups:
        for completion in group.completions:
            expected = dense_logprobs(policy.model, group.prompt.token_ids, completion.token_ids, temperature=0.8)
            torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)
