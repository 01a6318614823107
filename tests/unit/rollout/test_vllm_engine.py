"""The engine beside the trainer without vLLM: what it calls in which order, and how it fails."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.models import tiny_policy
from helpers.prompts import prompts_of_lengths
from lightning_r1.models.codec import Codec
from lightning_r1.models.live_weights import Bucket, live_weights, unpacked
from lightning_r1.rollout.engine import EngineError
from lightning_r1.rollout.in_time import InTime
from lightning_r1.rollout.vllm import VLLMEngine, _child_sees
from lightning_r1.rollout.vllm_request import vllm_parameters, whole_group
from lightning_r1.types import Sampling

HOW = Sampling(group_size=2, max_new_tokens=3)


class FakeLLMEngine:
    """Notes calls; every prompt's group is ready at one step, the last prompt's first."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.asked: list[str] = []
        self.empties = True
        self.lengths = (2, 3)
        self.engine_core = SimpleNamespace(ensure_alive=lambda: None, shutdown=lambda: self.calls.append("end"))

    def collective_rpc(self, method: str, timeout: float, args: tuple[Any, ...]) -> None:
        self.calls.append((method, *args))

    def reset_prefix_cache(self) -> bool:
        self.calls.append("forget")
        return self.empties

    def set_weight_version(self, version: str) -> None:
        self.calls.append(("version", version))

    def sleep(self, level: int) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self) -> None:
        self.calls.append("wake")

    def step(self) -> list[Any]:
        outputs = [
            SimpleNamespace(index=place, token_ids=[5] * length, logprobs=SimpleNamespace(logprobs=[-1.0] * length))
            for place, length in enumerate(self.lengths)
        ]
        return [SimpleNamespace(request_id=self.asked.pop(), outputs=outputs[::-1])]


@pytest.fixture
def fake() -> FakeLLMEngine:
    return FakeLLMEngine()


@pytest.fixture
def engine(fake: FakeLLMEngine, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> VLLMEngine:
    engine = VLLMEngine(tiny_policy(), codec, bucket_mib=0)
    monkeypatch.setattr(engine, "_start", lambda: fake)
    monkeypatch.setattr(engine, "_add", lambda prompts, how: fake.asked.extend(map(str, range(len(prompts)))))
    return engine


def test_a_sync_sends_the_live_weights_and_forgets_the_old_ones(engine: VLLMEngine, fake: FakeLLMEngine) -> None:
    with torch.no_grad():
        for parameter in engine.policy.parameters():
            parameter.add_(1.0)
    engine.sync_weights(7)
    names = [call if isinstance(call, str) else call[0] for call in fake.calls]
    sent = dict(live_weights(engine.policy.model, torch.float32))
    assert names == ["r1_start", *["r1_receive"] * len(sent), "r1_finish", "forget", "version"]
    assert fake.calls[-1] == ("version", "7")
    received = dict(pair for call in fake.calls if call[0] == "r1_receive" for pair in unpacked(Bucket(*call[1:])))
    assert received.keys() == sent.keys()
    assert all(torch.equal(received[name], sent[name]) for name in sent)
    assert engine.version == 7


def test_a_cache_that_stays_is_an_error_and_the_version_with_it(engine: VLLMEngine, fake: FakeLLMEngine) -> None:
    fake.empties = False
    with pytest.raises(EngineError, match=r"vLLM: its prefix cache could not be emptied"):
        engine.sync_weights(7)
    assert engine.version == 0


def test_groups_are_put_in_order(engine: VLLMEngine, codec: Codec) -> None:
    engine.version = 3
    given: list[int] = []
    told: list[tuple[int, int]] = []
    groups = engine.generate(
        prompts_of_lengths(codec, [4, 6]), HOW, seeds=[1, 2],
        progress=lambda done, total: told.append((done, total)), finished=lambda place, group: given.append(place),
    )  # fmt: skip
    assert [len(group.prompt.token_ids) for group in groups] == [4, 6]
    assert [len(done.token_ids) for done in groups[0].completions] == [2, 3]
    assert given == [1, 0]
    assert told == [(2, 4), (4, 4)]
    assert {done.policy_version for group in groups for done in group.completions} == {3}


@pytest.mark.parametrize(
    ("lengths", "expected"), [((2,), "1 completions came where 2"), ((2, 4), "has 4 tokens and 4")]
)
def test_what_was_not_asked_for_is_refused(
    engine: VLLMEngine, fake: FakeLLMEngine, codec: Codec, lengths: tuple[int, ...], expected: str
) -> None:
    fake.lengths = lengths
    with pytest.raises(EngineError, match=rf"vLLM, prompt test/0: .*{expected}"):
        engine.generate(prompts_of_lengths(codec, [4]), HOW, seeds=[1])


def test_a_prompt_is_asked_for_within_its_own_budget(
    engine: VLLMEngine, fake: FakeLLMEngine, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = prompts_of_lengths(codec, [4, 4])
    asked: list[int] = []
    monkeypatch.setattr(engine, "_add", lambda prompts, how: asked.extend(one["max_tokens"] for one in how) or
                        fake.asked.extend(["0", "1"]))  # fmt: skip
    fake.lengths = (2, 2)
    engine.generate([replace(first, token_budget=2), second], HOW, seeds=[1, 2])
    assert asked == [2, 3]
    fake.lengths = (2, 3)  # one too many
    with pytest.raises(EngineError, match="where 1 to 2 of each were asked for"):
        engine.generate([replace(first, token_budget=2)] * 2, HOW, seeds=[1, 2])


def test_sleep_and_wake(engine: VLLMEngine, fake: FakeLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.sleep()
    assert fake.calls == [], "nothing was started yet"
    engine.wake()
    engine.sleep()
    assert fake.calls == ["forget"], "on a CPU there is no sleep"
    fake.calls.clear()
    monkeypatch.setattr(VLLMEngine, "_on_gpu", True)
    engine.sleep()
    engine.sleep()
    engine.wake()
    engine.wake()
    assert fake.calls == [("sleep", 2), "wake"]
    engine.sleep_level = 0
    engine.sleep()
    engine.close()
    engine.close()
    assert fake.calls == [("sleep", 2), "wake", "forget", "end"]


def test_a_step_that_never_ends_and_a_process_that_is_gone(
    engine: VLLMEngine, fake: FakeLLMEngine, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    forever = threading.Event()
    monkeypatch.setattr(fake, "step", lambda: forever.wait(60))
    engine.timeout_s = 0.1
    with pytest.raises(EngineError, match=r"vLLM: sampling: it did not end within 0.1 s; look at vLLM's lines above"):
        engine.generate(prompts_of_lengths(codec, [4]), HOW, seeds=[1])
    engine._in_time, engine.timeout_s = InTime("vLLM", "", engine._gone), 3600.0

    def dead() -> None:
        raise RuntimeError("dead")

    fake.engine_core.ensure_alive = dead
    with pytest.raises(EngineError, match=r"vLLM: sampling: its process has ended"):
        engine.generate(prompts_of_lengths(codec, [4]), HOW, seeds=[1])
    forever.set()


def test_without_vllm_there_is_one_line(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        EngineError, match=r"rollout: vLLM cannot be imported .*pip install 'lightning-r1\[vllm\]'"
    ) as told:
        VLLMEngine(tiny_policy(), codec).wake()
    assert "\n" not in str(told.value)


def test_what_is_asked_of_vllm() -> None:
    how = Sampling(group_size=5, max_new_tokens=9, temperature=0.7, top_p=0.9, top_k=3, min_p=0.1)
    asked = vllm_parameters(how, (1 << 63) - 1, (2, 7))
    assert asked == {
        "n": 5, "max_tokens": 9, "temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "seed": (1 << 62) - 1,
        "stop_token_ids": [2, 7], "ignore_eos": True, "logprobs": 0, "detokenize": False,
    }  # fmt: skip
    greedy = Sampling(group_size=5, temperature=0.0)
    assert vllm_parameters(greedy, 1, (2,))["n"] == 1
    assert whole_group([([5], [-1.0])], greedy, "who") == [([5], [-1.0])] * 5


def test_the_child_sees_the_trainers_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("VLLM_ALLOW_INSECURE_SERIALIZATION", raising=False)
    with _child_sees(torch.device("cuda", 1)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
        assert os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert "VLLM_ALLOW_INSECURE_SERIALIZATION" not in os.environ
    with _child_sees(torch.device("cpu")):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
