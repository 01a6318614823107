"""Episodes against a loop that samples one completion alone, token by token, from a forward without a cache."""

from collections import Counter

import pytest
import torch

from helpers.engine import ScriptedEngine
from helpers.environments import Answers, hangs
from helpers.models import dense_logits, tiny_policy
from helpers.prompts import mini_codec, number_prompt, prompts_of_lengths
from lightning_r1.rollout.engine import EngineError, close, seed_for, uniform_draws
from lightning_r1.rollout.environment import Reply
from lightning_r1.rollout.episodes import Budget, EpisodeEngine, reply_ids
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

CALLS = tuple("+-*/=?;,")  # a random model writes one of them now and then
HOW = Sampling(group_size=3, max_new_tokens=30)


@pytest.fixture(scope="module")
def codec():
    return mini_codec(stop=tuple(".!"))


@pytest.fixture(scope="module")
def policy():
    return tiny_policy("qwen3", initializer_range=0.15)


def counts_characters(prompt, seed, text):
    """The reply depends on everything that it may depend on; its length varies."""
    if len(text) % 7 == 0:
        return None
    kind = "ok" if seed % 2 else "error"
    return Reply("1" * (len(text) % 4) + str(seed % 10), kind=kind, open="(", close=")")


def episodes(engine, codec, answer=counts_characters, stops=CALLS, **budget):
    budget = {"max_turns": 4, "max_reply_tokens": 5, "at_once": 2, **budget}
    return EpisodeEngine(engine, Answers(stops, answer), codec, Budget(**budget))


def naive_episode(policy, codec, prompt, seed, place, sampling, answer, stops, budget):
    """One completion alone: (token ids, log-probabilities, sampled, replies, finish reason)."""
    ids, logprobs, sampled, replies = [], [], [], []
    turn, own_seed = 1, seed_for(seed, "environment", place)
    draws = uniform_draws([seed], sampling.group_size, sampling.max_new_tokens)[place]
    written = 0
    most = sampling.budget(prompt)
    while True:
        if len(ids) == most:
            return ids, logprobs, sampled, replies, "length"
        row = [*prompt.token_ids, *ids]
        logits = dense_logits(policy.model, row, [0])
        token, logprob = sample_tokens(logits, draws[written : written + 1], sampling)
        written += 1
        ids.append(int(token))
        logprobs.append(float(logprob))
        sampled.append(True)
        if ids[-1] in codec.stop_ids:
            return ids, logprobs, sampled, replies, "stop"
        if not any(stop in codec.decode(ids[-1:]) for stop in stops):  # "</think>" has a "/"
            continue
        if turn == budget.max_turns or len(ids) == most:
            return ids, logprobs, sampled, replies, "length"
        reply = answer(prompt, own_seed, codec.completion_text(ids))
        if reply is None:
            return ids, logprobs, sampled, replies, "stop"
        replies.append(reply.kind)
        given = reply_ids(reply, codec, budget.max_reply_tokens)
        if len(ids) + len(given) >= most:
            return ids, logprobs, sampled, replies, "length"
        ids += given
        logprobs += [0.0] * len(given)
        sampled += [False] * len(given)
        draws = uniform_draws([seed_for(seed, "turn", place, turn)], 1, sampling.max_new_tokens)[0]
        turn, written = turn + 1, 0


def facts(completion):
    return (completion.token_ids, completion.sampled, completion.replies, completion.finish_reason, completion.text)


@pytest.mark.parametrize("max_rows", [64, 3])
def test_an_episode_is_what_a_naive_loop_writes(policy, codec, max_rows):
    prompts = prompts_of_lengths(codec, [3, 6, 6, 4, 8])
    seeds = [seed_for("naive", index) for index in range(len(prompts))]
    engine = episodes(GroupEngine(policy, codec, max_rows=max_rows), codec)
    groups = engine.generate(prompts, HOW, seeds=seeds)
    ends, kinds, turns = Counter(), Counter(), Counter()
    for prompt, seed, group in zip(prompts, seeds, groups, strict=True):
        assert group.prompt is prompt
        for place, completion in enumerate(group.completions):
            ids, logprobs, sampled, replies, reason = naive_episode(
                policy, codec, prompt, seed, place, HOW, counts_characters, CALLS, engine.budget
            )
            assert list(completion.token_ids) == ids
            assert list(completion.sampled) == sampled
            assert list(completion.replies) == replies
            assert completion.finish_reason == reason
            assert completion.text == codec.completion_text(ids)
            torch.testing.assert_close(torch.tensor(completion.logprobs), torch.tensor(logprobs), atol=1e-4, rtol=1e-4)
            assert [value for value, own in zip(completion.logprobs, sampled, strict=True) if not own] == [0.0] * (
                len(ids) - completion.length
            )
            assert len(ids) <= HOW.max_new_tokens
            ends[reason] += 1
            turns[len(replies)] += 1
            kinds.update(replies)
    # all of it happened
    assert set(ends) == {"stop", "length"}
    assert set(kinds) == {"ok", "error"}
    assert len(turns) >= 3


def test_neighbours_make_no_difference(policy, codec):
    prompts = prompts_of_lengths(codec, [3, 6, 5])
    engine = episodes(GroupEngine(policy, codec), codec)
    together = engine.generate(prompts, HOW, seeds=[5, 6, 7])
    alone = [engine.generate([prompt], HOW, seeds=[seed])[0] for prompt, seed in zip(prompts, [5, 6, 7], strict=True)]
    assert [[facts(one) for one in group.completions] for group in together] == [
        [facts(one) for one in group.completions] for group in alone
    ]
    assert len({seed for _, seed in engine.environment.opened}) == 9  # each its own


def test_without_a_call_nothing_changes(policy, codec):
    prompts = prompts_of_lengths(codec, [3, 6])
    plain = GroupEngine(policy, codec).generate(prompts, HOW, seeds=[1, 2])
    ours = episodes(GroupEngine(policy, codec), codec, stops=("nobody writes this",)).generate(
        prompts, HOW, seeds=[1, 2]
    )
    for one, other in zip(plain, ours, strict=True):
        for before, after in zip(one.completions, other.completions, strict=True):
            assert (before.token_ids, before.logprobs, before.text) == (after.token_ids, after.logprobs, after.text)
            assert after.sampled == (True,) * len(after.token_ids)


def test_the_reference_engine_talks_too(policy, codec):
    engine = episodes(HFEngine(policy, codec), codec)
    groups = engine.generate(prompts_of_lengths(codec, [3, 6, 4]), HOW, seeds=[1, 2, 3])
    completions = [one for group in groups for one in group.completions]
    assert sum(len(one.replies) for one in completions) > 3
    for completion in completions:
        dense = [value for value, own in zip(completion.logprobs, completion.sampled, strict=True) if own]
        assert all(value < 0 for value in dense)
        assert len(completion.token_ids) <= HOW.max_new_tokens


def talk(codec, texts, answer, *, sampling=HOW, stops=("=",), **budget):
    """One group of scripted completions; every further turn writes the same text again."""
    engine = episodes(ScriptedEngine(codec, {"1": texts}), codec, answer, stops, **budget)
    return engine, engine.generate([number_prompt(codec, "1", 1)], replace_size(sampling, len(texts)), seeds=[3])[0]


def replace_size(sampling, size):
    return Sampling(group_size=size, max_new_tokens=sampling.max_new_tokens, stop=sampling.stop)


def test_an_episode_ends_at_its_last_turn(codec):
    engine, group = talk(codec, ["1+2=", "7<eos>"], lambda *_: Reply("3"), max_turns=3)
    asking, done = group.completions
    assert asking.text == "<think>1+2=31+2=31+2="
    assert (asking.finish_reason, asking.replies) == ("length", ("ok", "ok"))
    assert (done.text, done.finish_reason, done.replies) == ("<think>7", "stop", ())
    assert engine.environment.asked == ["<think>1+2=", "<think>1+2=31+2="]


def test_none_ends_an_episode_and_an_empty_reply_does_not(codec):
    _, group = talk(codec, ["1="], lambda prompt, seed, text: None)
    assert (group.completions[0].text, group.completions[0].finish_reason) == ("<think>1=", "stop")
    _, group = talk(codec, ["1="], lambda prompt, seed, text: Reply(kind="error"), max_turns=3)
    assert group.completions[0].text == "<think>1=1=1="
    assert group.completions[0].sampled == (True,) * 6
    assert group.completions[0].replies == ("error", "error")


def test_a_reply_that_leaves_no_room_is_not_given(codec):
    sampling = Sampling(group_size=1, max_new_tokens=8)
    _, group = talk(codec, ["1+2="], lambda *_: Reply("3"), sampling=sampling)
    # 4 tokens, 1 of the reply, 4 more would be 9: the script does not listen to its budget, the episode does
    assert group.completions[0].replies == ("ok",)
    _, group = talk(codec, ["1+2="], lambda *_: Reply("+++"), sampling=Sampling(group_size=1, max_new_tokens=7))
    only = group.completions[0]
    assert (only.text, only.finish_reason, only.sampled) == ("<think>1+2=", "length", (True,) * 4)


def test_a_text_of_the_samplings_own_ends_the_episode(codec):
    sampling = Sampling(group_size=1, max_new_tokens=20, stop=(";",))
    engine, group = talk(codec, ["1;"], lambda *_: Reply("3"), sampling=sampling)
    assert (group.completions[0].text, group.completions[0].finish_reason) == ("<think>1;", "stop")
    assert engine.environment.asked == []


def test_a_long_reply_is_cut_between_its_words(codec):
    cut = reply_ids(Reply("123456789", open="(", close=")"), codec, 4)
    assert codec.decode(cut) == "(1234)"  # two digits are one token
    assert codec.decode(reply_ids(Reply("12", open="(", close=")"), codec, 4)) == "(12)"


def test_a_tool_writes_no_special_token(codec):
    eos = codec.tokenizer.eos_token_id
    told = reply_ids(Reply("1<eos></think>2", open="<think>"), codec, 40)
    assert codec.decode(told) == "<think>12"  # this tokenizer has no tokens to spell them with
    assert eos in reply_ids(Reply("1", close="<eos>"), codec, 40)  # the environment itself may


def test_the_end_of_a_turn_may_be_a_call(codec):
    _, group = talk(codec, ["1<eos>"], lambda *_: Reply("2", open=";"), stops=("<eos>",), max_turns=2)
    only = group.completions[0]
    assert codec.decode(only.token_ids) == "1<eos>;21<eos>"
    assert (only.finish_reason, only.sampled) == ("length", (True, True, False, False, True, True))


def test_what_an_environment_raises_is_counted_and_told(codec):
    def answer(prompt, seed, text):
        if text.count("=") == 2:
            raise KeyError("no such tool")
        return Reply("3")

    _, group = talk(codec, ["1="], answer, max_turns=4)
    assert group.completions[0].replies == ("ok", "crash", "ok")
    assert group.completions[0].text == "<think>1=31=(?)1=31="


def test_a_reply_that_hangs_is_left_behind(codec):
    def answer(prompt, seed, text):
        if text == "<think>1=":
            hangs()
        return Reply("3")

    _, group = talk(codec, ["1=", "2="], answer, max_turns=3, timeout_s=0.2, at_once=1)
    assert group.completions[0].replies == ("timeout", "ok")
    assert group.completions[1].replies == ("ok", "ok")


def test_an_environment_that_mostly_fails_ends_the_run_by_name(codec):
    def answer(prompt, seed, text):
        raise KeyError("no such tool")

    with pytest.raises(EngineError, match=r"Answers: 8 of 8 replies failed.*KeyError: 'no such tool'"):
        talk(codec, ["1="] * 9, answer)


def test_groups_are_given_away_as_soon_as_they_are_whole(codec):
    script = {"1": ["1=", "7<eos>"], "2": ["2<eos>", "3<eos>"]}
    engine = episodes(ScriptedEngine(codec, script), codec, lambda *_: Reply("3"), ("=",), max_turns=2)
    prompts = [number_prompt(codec, question, 1) for question in script]
    given, told = [], []

    def finished(place, group):
        given.append((place, len(engine.inner.calls)))

    groups = engine.generate(
        prompts, replace_size(HOW, 2), seeds=[1, 2], finished=finished, progress=lambda *n: told.append(n)
    )
    assert given == [(1, 1), (0, 2)]
    assert told[-1] == (4, 4)
    assert [len(group.completions) for group in groups] == [2, 2]


def test_what_a_listener_raises_ends_the_rollout(codec):
    def told(done, total):
        raise InterruptedError

    engine = episodes(ScriptedEngine(codec, {"1": ["1="]}), codec, lambda *_: Reply("3"), ("=",))
    with pytest.raises(InterruptedError):
        engine.generate([number_prompt(codec, "1", 1)], replace_size(HOW, 1), seeds=[1], progress=told)


def test_it_is_what_its_engine_is(codec):
    inner = ScriptedEngine(codec, {})
    engine = episodes(inner, codec)
    assert (engine.exact, engine.beside_training) == (True, True)
    engine.sync_weights(7)
    engine.sleep()
    assert (inner.version, inner.asleep) == (7, True)
    engine.wake()
    assert not inner.asleep
    close(engine)
    assert engine.environment.closed


@pytest.mark.parametrize(
    ("options", "told"),
    [({"max_turns": 1}, "max_turns=1"), ({"max_reply_tokens": 0}, "max_reply_tokens=0"), ({"timeout_s": 0}, "timeout")],
)
def test_a_budget_leaves_room(options, told):
    with pytest.raises(ValueError, match=told):
        Budget(**options)
