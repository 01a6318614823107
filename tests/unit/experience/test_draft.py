"""A draft in flight: made in a thread, its errors told by name, and never waited for in vain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from lightning_r1.experience.draft import Draft, Flight, Landed, make_draft
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Sampling

CPU = torch.device("cpu")
SCRIPT = {"1": ["</think><answer>1</answer><eos>", ";;"]}


def length(prompt: Any, completion: Any) -> float:
    return float(len(completion.token_ids))


def draft(codec: Codec, still_wanted: Callable[[], None] = lambda: None, **engine: Any) -> Draft:
    prompts = [number_prompt(codec, "1", 1)] * 2
    scripted = ScriptedEngine(codec, SCRIPT)
    return make_draft(
        prompts,
        [5, 6],
        scripted,
        RewardSuite({"length": length}),
        Sampling(group_size=2, max_new_tokens=16),
        still_wanted=still_wanted,
    )


def test_it_is_what_the_main_thread_would_have_made(codec: Codec) -> None:
    flight = Flight(lambda still_wanted: draft(codec, still_wanted), CPU)
    assert flight.result().scored == draft(codec).scored
    assert flight.result().waited_seconds is not None
    landed = Landed.from_state_dict(flight.state_dict())
    assert landed.result().scored == draft(codec).scored
    assert landed.state_dict()["generation_seconds"] == flight.state_dict()["generation_seconds"]


def test_no_prompts_make_an_empty_draft(codec: Codec) -> None:
    suite = RewardSuite({"length": length})
    assert make_draft([], [], ScriptedEngine(codec, SCRIPT), suite, Sampling()) == Draft([], 0.0, 0.0)


def test_an_error_is_raised_where_the_draft_is_wanted(codec: Codec) -> None:
    def fails(still_wanted: Callable[[], None]) -> Draft:
        raise RewardError("reward.rewards.length: it is gone")

    flight = Flight(fails, CPU)
    flight.settle()  # tells nothing
    assert flight.state_dict() is None
    with pytest.raises(RewardError, match=r"reward\.rewards\.length: it is gone") as caught:
        flight.result()
    assert caught.value.__notes__ == [
        "raised while the next rollout was sampled beside the update (algo.overlap_rollouts)"
    ]


def test_one_that_is_abandoned_ends_at_the_next_group(codec: Codec) -> None:
    begun, go = threading.Event(), threading.Event()

    def waits(still_wanted: Callable[[], None]) -> Draft:
        begun.set()
        go.wait(30)
        return draft(codec, still_wanted)

    flight = Flight(waits, CPU)
    assert begun.wait(30)
    flight.abandon(patience_s=0)  # does not wait for an engine that does not listen
    go.set()
    flight.settle()
    assert flight.state_dict() is None


def test_the_thread_computes_as_the_main_thread_does() -> None:
    def where(still_wanted: Callable[[], None]) -> Draft:
        seen.append((torch.get_num_threads(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return Draft([], 0.0, 0.0)

    seen: list[Any] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Flight(where, CPU).settle()
    Flight(where, CPU).settle()
    threads = torch.get_num_threads()
    assert seen[0] == (threads, True, torch.bfloat16)
    assert seen[1][:2] == (threads, False)
