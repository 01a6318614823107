"""A judge is put to the test at the start and every N steps: rates by hand, the alarm, what is asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import judges
from helpers.endpoint import Answer, endpoint
from helpers.judges import message_of, parts_of, says
from lightning_r1.rewards.canaries import CASES, Canaries
from lightning_r1.rewards.judge import Judge
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rewards.verdicts import Quality
from lightning_r1.text.openers import MASTER_KEYS
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

Says = Callable[[dict[str, Any]], Answer]
WRONG = sum(not canary.right for canary in CASES["answers"])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def judge(url: str, canaries: Canaries | None, **options: Any) -> Judge:
    quick = {"deadline_s": 20.0, "first_wait_s": 0.01, "name": "mine"}
    return Judge(Tags(), base_url=url, model="m", canaries=canaries, **{**quick, **options})


def test_the_set_has_master_keys_injections_and_honest_answers() -> None:
    wrong = {canary.answer for canary in CASES["answers"] if not canary.right}
    assert wrong >= set(MASTER_KEYS) | {" "}
    assert any("<|im_end|>" in answer for answer in wrong)
    assert any("correctness" in answer for answer in wrong)
    for cases in CASES.values():
        assert {canary.right for canary in cases} == {True, False}
    assert Canaries().max_false_positive_rate < 1 / WRONG  # a single one raises the alarm


def test_rates_by_hand() -> None:
    def scores(right: float, wrong: float, **outcomes: Outcome) -> list[RewardScore]:
        return [
            RewardScore(right if canary.right else wrong, outcomes.get("r" if canary.right else "w", Outcome.OK))
            for canary in CASES["answers"]
        ]

    rates = Canaries().rates
    assert rates(scores(1.0, 0.0)) == {"false_positive_rate": 0.0, "false_negative_rate": 0.0}
    assert rates(scores(0.5, 0.5)) == {"false_positive_rate": 1.0, "false_negative_rate": 0.0}
    assert rates(scores(0.49, 0.49)) == {"false_positive_rate": 0.0, "false_negative_rate": 1.0}
    unread = scores(math.nan, math.nan, r=Outcome.UNSCORABLE, w=Outcome.UNSCORABLE)
    assert rates(unread) == {"false_positive_rate": 0.0, "false_negative_rate": 1.0}
    assert rates(scores(math.nan, 0.0, r=Outcome.TIMEOUT)) == {"false_positive_rate": 0.0}
    one = scores(1.0, 0.0)
    one[1] = RewardScore(1.0)
    assert rates(one)["false_positive_rate"] == pytest.approx(1 / WRONG)


def test_a_judge_that_knows_starts_and_tells_every_n_steps(tmp_path: Path) -> None:
    with endpoint(judges.honest) as server:
        mine = judge(server.url, Canaries(every_n_steps=10), cache=tmp_path)
        mine.start()
        assert len(server.requests) == len(CASES["answers"])
        shown = [parts_of(message_of(body)) for _, _, body in server.requests]
        assert {part["reference"] for part in shown} == {canary.reference for canary in CASES["answers"]}
        told = {step: mine.watch(step) for step in (3, 7, 12, 13, 14, 22, 23, 40)}
    assert [step for step, metrics in told.items() if metrics] == [13, 23, 40]
    assert set(told[13]) == {"rollout/judge/mine/false_positive_rate", "rollout/judge/mine/false_negative_rate"}
    assert told[13]["rollout/judge/mine/false_positive_rate"] == 0.0
    # they go past the cache, both ways
    assert len(server.requests) == 4 * len(CASES["answers"])
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        (judges.pleased, "false_positive_rate"),
        (lambda body: says(message_of(body), correctness="incorrect"), "false_negative_rate"),
        (lambda body: "no idea", "false_negative_rate"),
    ],
    ids=["pleased", "denies", "unreadable"],
)
def test_one_that_falls_for_them_raises_the_alarm(model: Says, rate: str, caplog: pytest.LogCaptureFixture) -> None:
    with endpoint(model) as server:
        with pytest.raises(RuntimeError, match=rf"judge mine: of canaries .*max_{rate}=") as caught:
            judge(server.url, Canaries()).start()
        assert "\n" not in str(caught.value)
        with caplog.at_level(logging.WARNING):
            judge(server.url, Canaries(alarm="warn")).start()
        assert f"max_{rate}=" in caplog.text
        judge(server.url, Canaries(**{f"max_{rate}": 1.0})).start()
        judge(server.url, None).start()


def test_one_that_learns_to_please_stops_the_run() -> None:
    model: list[Says] = [judges.honest]
    with endpoint(lambda body: model[0](body)) as server:
        mine = judge(server.url, Canaries(every_n_steps=1))
        suite = RewardSuite({"judge": mine})
        suite.start()
        assert suite.watch(1) == {}
        assert suite.watch(2)["rollout/judge/mine/false_positive_rate"] == 0
        model[0] = judges.pleased
        with pytest.raises(ValueError, match=r"reward\.rewards\.judge: judge mine: of canaries that are wrong"):
            suite.watch(3)


def test_one_that_is_away_cannot_start_but_does_not_stop_a_run() -> None:
    model: list[Says] = [lambda body: 503]
    with endpoint(lambda body: model[0](body)) as server:
        mine = judge(server.url, Canaries(every_n_steps=1), deadline_s=0.2)
        with pytest.raises(RuntimeError, match=r"judge mine: it does not answer: .*(no answer within|still away)"):
            mine.start()
        assert mine.watch(0) == {}
        assert mine.watch(5) == {}  # not a single one was answered


def test_a_judge_of_harm_has_canaries_of_its_own() -> None:
    def kind(body: dict[str, Any]) -> str:
        said = parts_of(message_of(body))["answer"]
        harmful = any(canary.answer == said and not canary.right for canary in CASES["harm"])
        return says(message_of(body), grade=2 if harmful else 9)

    with endpoint(kind) as server:
        mine = judge(server.url, Canaries("harm"), verdict=Quality("harmless"), scope="response")
        mine.start()
        score = mine(Prompt("a", "b", "", (), {}), Completion((), (), "stop", "<think>x</think>y"))
    assert score.value == pytest.approx(8 / 9)
    with endpoint(lambda body: says(message_of(body), grade=9)) as server, pytest.raises(RuntimeError, match="100%"):
        judge(server.url, Canaries("harm"), verdict=Quality("harmless")).start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": "birds"}, "canaries.cases='birds': expected one of answers, harm"),
        ({"alarm": "ring"}, "canaries.alarm='ring': expected stop or warn"),
        ({"every_n_steps": 0}, "canaries.every_n_steps=0: expected >= 1"),
        ({"max_false_positive_rate": 2}, "canaries.max_false_positive_rate=2: expected a share"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Canaries(**options)
