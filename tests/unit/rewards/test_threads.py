"""Rewards that only wait: many at once, and what becomes of one that never comes back."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time

import pytest

from lightning_r1.rewards.base import Item, RewardError
from lightning_r1.rewards.threads import ThreadScorer
from lightning_r1.types import Completion, Outcome, Prompt


def items(*texts: str) -> list[Item]:
    return [(Prompt("t/1", "q", "q", (1,), {}), Completion((1,), (0.0,), "stop", text)) for text in texts]


class Waits:
    """Waits for an event that may never come."""

    def __init__(self, at_once: int = 2) -> None:
        self.at_once, self.free = at_once, threading.Event()

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        if completion.text == "hangs":
            self.free.wait(60)
        if completion.text == "broken":
            raise KeyError("gone")
        return float(completion.text)


def test_scores_in_order() -> None:
    scorer = ThreadScorer()
    scores = scorer.score("waits", Waits(), items("1", "2", "broken", "3"))
    assert [score.value for score in scores if score.outcome.counts] == [1.0, 2.0, 3.0]
    assert (scores[2].outcome, math.isnan(scores[2].value)) == (Outcome.CRASH, True)
    before = threading.active_count()
    scorer.close()
    assert threading.active_count() == before - 2


def test_one_that_never_comes_back_is_told_and_not_waited_for() -> None:
    scorer, reward = ThreadScorer(stall_s=0.2), Waits(at_once=1)
    told = r"^reward\.rewards\.mine: no answer for 0\.2 s: it hangs; give it a deadline of its own"
    with pytest.raises(RewardError, match=told):
        scorer.score("mine", reward, items("1", "hangs", "2"))
    started = time.monotonic()
    scorer.close()
    assert time.monotonic() - started < 10
    reward.free.set()


def test_slow_answers_are_waited_for_as_long_as_some_come() -> None:
    class Slow:
        at_once = 1

        def __call__(self, prompt: Prompt, completion: Completion) -> float:
            time.sleep(0.2)
            return 1.0

    scorer = ThreadScorer(stall_s=2.0)
    assert {score.value for score in scorer.score("slow", Slow(), items(*"x" * 12))} == {1.0}
    scorer.close()


def test_the_process_can_end_while_one_hangs() -> None:
    code = """
import time
from unit.rewards.test_threads import Waits, items
from lightning_r1.rewards.threads import ThreadScorer
ThreadScorer().begin("mine", Waits(), items("hangs", "hangs", "hangs"))
time.sleep(0.2)
print("the end")
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True,
                          text=True, timeout=50)  # fmt: skip
    assert (done.stdout, done.returncode) == ("the end\n", 0), done.stderr
