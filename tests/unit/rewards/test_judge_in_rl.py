"""A small rollout with a judge as the reward; one that dies half-way is left out, and a run that goes on agrees."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from helpers import judges
from helpers.endpoint import Answer, Endpoint, endpoint, skip_waits
from helpers.engine import ScriptedEngine
from lightning_r1.experience.collect import Credit, Rollout, collect
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.canaries import Canaries
from lightning_r1.rewards.judge import Judge
from lightning_r1.rewards.outcomes import NEVER, StopAt
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.text.tags import Tags
from lightning_r1.types import Outcome, Prompt, Sampling

SCRIPT = {
    "1+2": ["1</think> friend 3 welcome<eos>", "2</think> fool<eos>", "3</think>...<eos>", "4 welcome"],
    "3+4": [
        "1</think> thanks<eos>",
        "2</think> friend, welcome<eos>",
        "3</think> fool 1<eos>",
        "4</think> fool 2<eos>",
    ],
    "5+6": ["1</think> fool 3<eos>", "2</think> fool 4<eos>", "3</think> welcome 5<eos>", "4</think> welcome 6<eos>"],
}


@pytest.fixture(autouse=True)
def no_proxy_and_no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    skip_waits(monkeypatch)


def roll(codec: Codec, server: Endpoint, cache: Path, *, stop_at: StopAt = NEVER, **options: Any) -> Rollout:
    prompts = [codec.prompt(name, {"reference": "welcome"}, id=name, domain="helpful") for name in SCRIPT]
    quick = {"deadline_s": 60.0, "first_wait_s": 0.01, "at_once": 1, "canaries": None}
    judge = Judge(Tags(), base_url=server.url, model="m", cache=cache, **{**quick, **options})
    suite = RewardSuite({"judge": judge}, routes={"judge": ["helpful"]}, stop_at=stop_at)

    def draw(taken: int, count: int) -> tuple[list[Prompt], list[int]]:
        return prompts, [0, 1, 2]

    try:
        return collect(
            draw, ScriptedEngine(codec, SCRIPT), suite, sampling=Sampling(group_size=4), credit=Credit(), groups=3
        )
    finally:
        suite.close()


def values(rollout: Rollout) -> list[list[float]]:
    return [list(scored.rewards) for scored in rollout.scored]


WHOLE = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("at_once", [1, 8])
def test_its_verdicts_become_advantages(at_once: int, codec: Codec, tmp_path: Path) -> None:
    with endpoint(judges.honest) as server:
        rollout = roll(codec, server, tmp_path, at_once=at_once)
    assert values(rollout) == WHOLE
    outcomes = [score.outcome for score in rollout.scored[0].breakdown["judge"]]
    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.WRONG_FORMAT, Outcome.WRONG_FORMAT]
    assert len(server.requests) == 10  # two of the first group's are settled by rule
    for row, rewards in zip(rollout.advantages.tolist(), WHOLE, strict=True):
        mean = fmean(rewards)
        std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / 3)
        assert row == pytest.approx([(reward - mean) / (std + 1e-4) for reward in rewards])


def dies_after(questions: int) -> Callable[[dict[str, Any]], Answer]:
    left = iter([judges.honest] * questions)
    gone: Callable[[dict[str, Any]], Answer] = lambda body: 503  # noqa: E731
    return lambda body: next(left, gone)(body)


def test_one_that_dies_half_way_takes_what_it_did_not_judge_out_and_nothing_else(codec: Codec, tmp_path: Path) -> None:
    with endpoint(dies_after(4)) as server:
        rollout = roll(codec, server, tmp_path)
    first, second, third = values(rollout)
    assert first == WHOLE[0]
    assert second[:2] == WHOLE[1][:2]
    assert all(map(math.isnan, [*second[2:], *third]))
    outcomes = [score.outcome for scored in rollout.scored for score in scored.breakdown["judge"]]
    assert outcomes.count(Outcome.TIMEOUT) == 6
    # the group is the two that were judged: they get their credit, the others none
    advantages = rollout.advantages.tolist()
    unit = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert advantages[1] == pytest.approx([-unit, unit, 0.0, 0.0])
    assert advantages[2] == [0.0] * 4


def test_one_that_is_away_too_often_stops_the_run_with_its_address(codec: Codec, tmp_path: Path) -> None:
    with endpoint(dies_after(4)) as server:
        with pytest.raises(RewardError, match=rf"reward\.rewards\.judge.*timeout.*{re.escape(server.url)}") as caught:
            roll(codec, server, tmp_path, stop_at=StopAt(timeout=0.4))
        assert "\n" not in str(caught.value)
    with endpoint(dies_after(0)) as server, pytest.raises(RewardError, match="judge judge: it does not answer"):
        roll(codec, server, tmp_path, canaries=Canaries())


def test_a_run_that_goes_on_has_the_verdicts_it_had(codec: Codec, tmp_path: Path) -> None:
    with endpoint(dies_after(4)) as server:
        before = roll(codec, server, tmp_path)
        # it comes back, in a bad mood: what was right is wrong now
        server.answer = lambda body: judges.says(judges.message_of(body), correctness="incorrect")
        del server.requests[:]
        after = roll(codec, server, tmp_path)
        assert len(server.requests) == 6
        del server.requests[:]
        again = roll(codec, server, tmp_path)
        assert server.requests == []
    assert values(after)[:1] == values(before)[:1] == [WHOLE[0]]
    assert values(after)[1] == [0.0, 1.0, 0.0, 0.0]
    assert values(after)[2] == [0.0] * 4
    assert values(again) == values(after)
