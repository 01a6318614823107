"""The client of a vLLM server, against servers that behave and servers that do not: it never hangs, and says why."""

from __future__ import annotations

import csv
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.endpoint import drips, floods, hangs, http, sends
from helpers.environments import Answers
from helpers.fake_vllm import GENERATE, FakeVLLM, serving
from helpers.models import tiny_policy
from helpers.prompts import prompts_of_lengths
from helpers.quick import quick_rl, random_base
from helpers.ranks import on_ranks
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.models.codec import Codec
from lightning_r1.rollout import vllm_server
from lightning_r1.rollout.engine import EngineError
from lightning_r1.rollout.environment import Reply
from lightning_r1.rollout.episodes import Budget, EpisodeEngine
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.serve_vllm import serve_command, serve_environment
from lightning_r1.rollout.vllm_server import VLLMServerEngine
from lightning_r1.train import train
from lightning_r1.types import Sampling

HOW = Sampling(group_size=3, max_new_tokens=6)
SOON = {"start_s": 0.6, "timeout_s": 0.5, "sync_s": 0.5}


@pytest.fixture
def fake(codec: Codec) -> FakeVLLM:
    return FakeVLLM(tiny_policy(seed=7), codec)


@pytest.fixture
def url(fake: FakeVLLM) -> Iterator[str]:
    with serving(fake) as served:
        yield served.url


def engine_of(url: str, codec: Codec, **options: Any) -> VLLMServerEngine:
    return VLLMServerEngine(tiny_policy(), codec, base_url=url, **options)


def sampled(engine: VLLMServerEngine, how: Sampling = HOW, **more: Any) -> list[Any]:
    return engine.generate(prompts_of_lengths(engine.codec, [4, 9, 6]), how, seeds=[1, 2, 3], **more)


@pytest.mark.parametrize("bucket_mib", [0, 256])
def test_weights_arrive_and_samples_are_the_policys(url: str, fake: FakeVLLM, codec: Codec, bucket_mib: int) -> None:
    engine = engine_of(url, codec, bucket_mib=bucket_mib)
    for version in (3, 4):
        engine.sync_weights(version)
        groups = sampled(engine)
        assert logprob_gap(engine.policy, codec, groups, 1.0) < 1e-5
        assert {done.policy_version for group in groups for done in group.completions} == {version}
        with torch.no_grad():
            for parameter in engine.policy.parameters():
                parameter.mul_(1.1)
    assert sorted(fake.received) == sorted(name for name, _ in engine.policy.model.named_parameters())
    once = [call for call in fake.calls if call != GENERATE]
    receives = once.count("r1_receive") // 2
    assert receives == (1 if bucket_mib else len(fake.received))
    update = ["r1_start", *["r1_receive"] * receives, "r1_finish", "/reset_prefix_cache", "/update_weight_version"]
    assert once == ["/health", "r1_describe", *update, *update]


def test_a_prompt_is_sampled_within_its_own_budget(url: str, codec: Codec) -> None:
    engine = engine_of(url, codec)
    engine.sync_weights(1)
    first, second = prompts_of_lengths(codec, [4, 9])
    groups = engine.generate([replace(first, token_budget=1), second], HOW, seeds=[1, 2])
    assert {len(done.token_ids) for done in groups[0].completions} == {1}
    assert max(len(done.token_ids) for done in groups[1].completions) > 1


def test_groups_are_in_order_and_given_away_when_whole(url: str, codec: Codec) -> None:
    engine = engine_of(url, codec)
    engine.sync_weights(1)
    given: dict[int, Any] = {}
    told: list[tuple[int, int]] = []
    groups = sampled(engine, progress=lambda done, total: told.append((done, total)), finished=given.__setitem__)
    assert [len(group.prompt.token_ids) for group in groups] == [4, 9, 6]
    assert given == dict(enumerate(groups))
    assert told == [(3, 9), (6, 9), (9, 9)]
    assert sampled(engine) == groups
    greedy = sampled(engine, replace(HOW, temperature=0.0))
    assert all(len(group.completions) == 3 and len(set(group.completions)) == 1 for group in greedy)


def test_episodes_stop_at_texts_that_the_server_does_not_know(url: str, fake: FakeVLLM, codec: Codec) -> None:
    """It is told the tokens that may complete one, and an episode goes on where none did."""
    engine = engine_of(url, codec)
    engine.sync_weights(1)
    prompts = prompts_of_lengths(codec, [3, 5, 8])
    greedy = Sampling(group_size=1, max_new_tokens=24, temperature=0.0)
    plain = GroupEngine(fake.policy, codec).generate(prompts, greedy, seeds=[0, 0, 0])
    # texts of two tokens: the second alone completes none
    written = [codec.decode(group.completions[0].token_ids[place : place + 2]) for group in plain for place in (4, 9)]
    world = Answers(tuple(dict.fromkeys(written)), lambda prompt, seed, text: Reply("77"))
    budget = Budget(max_turns=4, max_reply_tokens=4)
    expected, ours = (
        EpisodeEngine(inner, world, codec, budget).generate(prompts, greedy, seeds=[0, 0, 0])
        for inner in (GroupEngine(fake.policy, codec), engine)
    )
    facts = [[(one.token_ids, one.sampled, one.replies, one.finish_reason) for one in group.completions]
             for groups in (expected, ours) for group in groups]  # fmt: skip
    assert facts[:3] == facts[3:]
    replies = sum(len(group.completions[0].replies) for group in ours)
    assert replies >= 3
    assert fake.calls.count(GENERATE) > 3 + replies  # it paused


def test_the_key_is_sent(fake: FakeVLLM, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_TEST", "secret")
    with serving(fake) as served:
        engine_of(served.url, codec, api_key_env="OF_THIS_TEST").sync_weights(1)
        assert {headers["Authorization"] for _, headers, _ in served.requests} == {"Bearer secret"}
        assert served.requests[0][0] == "/health", "without /v1"


def test_a_run_trains_from_a_server(url: str, fake: FakeVLLM, tmp_path: Path) -> None:
    base = random_base(tmp_path / "base")
    options = ["rollout=vllm_server", f"rollout.base_url={url}", "rollout.parity_tolerance=1e-4"]
    train(quick_rl(tmp_path, base, *options, "algo.sampler_correction=mask", "algo.dead_groups=keep"))
    with (tmp_path / "coin/rl/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["policy/loss"]]
    assert len(rows) == 3
    assert all(float(row["policy/logprob_gap"]) < 1e-5 for row in rows)
    assert all(float(row["rollout/parity_gap"]) < 1e-5 for row in rows)


def test_a_server_that_drops_an_update_is_found_by_the_probe(url: str, fake: FakeVLLM, tmp_path: Path) -> None:
    fake.instead["r1_receive"] = lambda body: b'{"results": [null]}' if fake.version != "default" else None
    options = ["rollout=vllm_server", f"rollout.base_url={url}", "rollout.parity_tolerance=1e-4", "eval.sets=null"]
    with pytest.raises(EngineError, match=r"rollout\.parity_tolerance=0\.0001: after a sync"):
        train(quick_rl(tmp_path, random_base(tmp_path / "base"), *options, "algo.sampler_correction=mask"))


def edited(edit: Callable[[dict[str, Any]], None]) -> Callable[[FakeVLLM], Callable[[dict[str, Any]], bytes]]:
    """A right reply with something wrong in its first choice."""

    def of(fake: FakeVLLM) -> Callable[[dict[str, Any]], bytes]:
        def answer(body: dict[str, Any]) -> bytes:
            told = fake.generate(body)
            edit(told["choices"][0])
            return json.dumps(told).encode()

        return answer

    return of


def cut(choice: dict[str, Any]) -> None:
    choice["logprobs"]["content"].pop()


def always(answer: Any) -> Callable[[FakeVLLM], Callable[[dict[str, Any]], Any]]:
    return lambda fake: lambda body: answer


BAD_SAMPLES = {
    "hangs": (always(hangs), r"no whole answer within 0\.5 s; look at the server's log"),
    "drips": (always(drips(http(b'{"choices": []}'), every_s=0.1)), r"no whole answer within 0\.5 s"),
    "hangs up": (always(sends(b"")), r"RemoteDisconnected"),
    "breaks off": (always(sends(http(b'{"cho', length=500))), r"HTTPException: the reply ended"),
    "is no HTTP": (always(sends(b"hello\r\n\r\n")), r"BadStatusLine"),
    "fails": (always(500), r"HTTP 500: told to; look at the server's log"),
    "wants a key": (always(401), r"HTTP 401; .*put it into the variable VLLM_API_KEY"),
    "redirects": (always((302, {"Location": "http://elsewhere"})), r"HTTP 302"),
    "says no JSON": (always(b"{"), r"JSONDecodeError"),
    "says a list": (always(b"[1]"), r"the reply is no JSON object"),
    "says something else": (always(b'{"choices": [{"text": "hi"}]}'), r"not vLLM 0\.32's \(KeyError: 'index'\)"),
    "nothing sampled": (always(b'{"choices": []}'), r"samples with weights of version , this run"),
    "too few": (lambda fake: lambda body: json.dumps({"choices": fake.generate(body)["choices"][:2]}).encode(),
                r"prompt test/\d: 2 completions came where 3 were asked for"),
    "a log-probability is missing": (edited(cut), r"prompt test/\d: a completion has (\d) tokens and (?!\1)\d log-"),
    "too long": (edited(lambda one: one.update(token_ids=[5] * 7)), r"has 7 tokens and .* where 1 to 6"),
    "no log-probabilities": (edited(lambda one: one.update(logprobs=None)), r"not vLLM 0\.32's \(TypeError"),
    "foreign token": (edited(lambda one: one["token_ids"].__setitem__(0, 10**6)), r"token 1000000 came, the policy ha"),
    "other weights": (edited(lambda one: one["weight_versions"][0].update(version="9")),
                      r"samples with weights of version 1, 9, this run is at 1: it was restarted, or another run"),
    "does not know its weights": (edited(lambda one: one.update(weight_versions=None)), r"not vLLM 0\.32's \(Typ"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_a_bad_sample_is_an_error_by_name(name: str, url: str, fake: FakeVLLM, codec: Codec) -> None:
    make, expected = BAD_SAMPLES[name]
    engine = engine_of(url, codec, timeout_s=0.5)
    engine.sync_weights(1)
    fake.instead[GENERATE] = make(fake)
    with pytest.raises(EngineError, match=expected) as told:
        sampled(engine)
    assert "\n" not in str(told.value)
    assert engine.url in str(told.value)


def test_a_reply_without_end_is_cut(url: str, fake: FakeVLLM, codec: Codec) -> None:
    engine = engine_of(url, codec)
    engine.sync_weights(1)
    engine.routes.post.most_bytes = 1 << 18
    fake.instead[GENERATE] = lambda body: floods(1 << 22)
    with pytest.raises(EngineError, match=r"ReplyTooLong: the reply has more than"):
        sampled(engine)


BAD_SYNCS = {
    "hangs": ("r1_receive", hangs, r"/collective_rpc: no whole answer within 0\.5 s"),
    "has no such routes": ("r1_start", 404, r"/collective_rpc: HTTP 404: .*python -m lightning_r1.rollout.serve_vllm"),
    "cannot load": ("r1_finish", 500, r"/collective_rpc: HTTP 500"),
    "keeps its cache": ("/reset_prefix_cache", b'{"success": false}', r"the cache of the old weights could not be emp"),
    "cannot count": ("/update_weight_version", 500, r"/update_weight_version: HTTP 500"),
}


@pytest.mark.parametrize("name", BAD_SYNCS)
def test_a_bad_sync_is_an_error_by_name(name: str, url: str, fake: FakeVLLM, codec: Codec) -> None:
    what, answer, expected = BAD_SYNCS[name]
    fake.instead[what] = lambda body: answer
    engine = engine_of(url, codec, sync_s=0.5)
    with pytest.raises(EngineError, match=expected):
        engine.sync_weights(1)
    assert engine.version == 0
    del fake.instead[what]
    engine.sync_weights(2)  # an update that was broken off does not stand in the way of the next
    assert logprob_gap(engine.policy, codec, sampled(engine), 1.0) < 1e-5


@pytest.mark.parametrize(
    ("field", "value"),
    [("architecture", "LlamaForCausalLM"), ("vocab_size", 5), ("hidden_size", 7), ("logprobs_mode", "raw_logprobs")],
)
def test_a_server_of_another_model_is_refused(field: str, value: Any, url: str, fake: FakeVLLM, codec: Codec) -> None:
    fake.describes[field] = value
    with pytest.raises(
        EngineError, match=rf"rollout.base_url=http://127.*: it serves {field}={value}, this run needs "
    ):
        engine_of(url, codec).wake()


def test_a_server_that_does_not_take_nccl_is_refused(url: str, codec: Codec) -> None:
    with pytest.raises(EngineError, match=r"rollout.weights=nccl: the server at .* was not started for it; start it"):
        engine_of(url, codec, weights="nccl").wake()


def test_a_server_is_waited_for(url: str, fake: FakeVLLM, codec: Codec) -> None:
    fake.instead["/health"] = lambda body: 503 if fake.calls.count("/health") < 3 else None
    engine_of(url, codec, start_s=30.0).wake()
    assert fake.calls == ["/health"] * 3 + ["r1_describe"]


@pytest.mark.parametrize("answer", [hangs, 503])
def test_a_server_that_never_gets_healthy_is_given_up(url: str, fake: FakeVLLM, codec: Codec, answer: Any) -> None:
    fake.instead["/health"] = lambda body: answer
    with pytest.raises(
        EngineError, match=r"rollout.base_url=http://127.*: no server is up after 0.6 s \(rollout.start_s"
    ):
        engine_of(url, codec, **SOON).wake()


def test_nobody_at_the_address_is_an_error_by_name(codec: Codec) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            EngineError, match=rf"rollout.base_url={url}: no server is up .* last: .*Connection refused"
        ):
            engine_of(url, codec, **SOON).wake()


def test_a_server_that_goes_away_is_an_error(fake: FakeVLLM, codec: Codec) -> None:
    with serving(fake) as served:
        engine = engine_of(served.url, codec, **{**SOON, "start_s": 30.0})
        engine.sync_weights(1)
    with pytest.raises(EngineError, match=r"/inference/v1/generate: URLError: .*Connection refused"):
        sampled(engine)


def test_the_servers_command() -> None:
    command = serve_command("org/model", "--tensor-parallel-size", "2", port=9000, weights="nccl")
    assert command[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "org/model"]
    assert command[-2:] == ["--tensor-parallel-size", "2"]
    flags = dict(pairwise(command))
    assert flags["--logprobs-mode"] == "processed_logprobs"
    assert flags["--worker-extension-cls"] == "lightning_r1.rollout.vllm_worker.WeightReceiver"
    assert flags["--host"] == "127.0.0.1"
    assert json.loads(flags["--weight-transfer-config"]) == {"backend": "nccl"}
    assert serve_environment({"A": "b", "VLLM_LOGGING_LEVEL": "INFO"}) == {
        "A": "b", "VLLM_LOGGING_LEVEL": "INFO", "VLLM_SERVER_DEV_MODE": "1",
    }  # fmt: skip


def test_two_ranks_send_once_and_both_sample(
    url: str, fake: FakeVLLM, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [engine_of(url, codec) for _ in range(2)]

    def work(engine: VLLMServerEngine, length: int) -> tuple[int, float]:
        engine.sync_weights(5)
        groups = engine.generate(prompts_of_lengths(codec, [length]), HOW, seeds=[length])
        return groups[0].completions[0].policy_version, logprob_gap(engine.policy, codec, groups, 1.0)

    told = on_ranks(monkeypatch, [vllm_server], [partial(work, engines[0], 4), partial(work, engines[1], 7)])
    assert [version for version, _ in told] == [5, 5]
    assert max(gap for _, gap in told) < 1e-5
    assert fake.calls.count("r1_start") == fake.calls.count("r1_finish") == 1


@pytest.mark.parametrize("what", ["r1_receive", "r1_describe"])
def test_what_fails_on_one_rank_is_raised_on_all(
    what: str, url: str, fake: FakeVLLM, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.instead[what] = lambda body: 500 if fake.calls.count(what) == 1 else None

    def work(engine: VLLMServerEngine) -> str:
        with pytest.raises(EngineError) as told:
            engine.sync_weights(5)
        return str(told.value)

    first, second = on_ranks(monkeypatch, [vllm_server], [partial(work, engine_of(url, codec)) for _ in range(2)])
    assert first == second
    assert "/collective_rpc: HTTP 500" in first
