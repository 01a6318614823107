"""Evaluation with an engine that follows a script."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from helpers.ranks import on_ranks
from lightning_r1.evaluation import evaluator
from lightning_r1.evaluation.evaluator import evaluate
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rollout.engine import seed_for
from lightning_r1.types import Completion, Prompt, RewardScore, Sampling

# for each question: right, right in the wrong format, wrong, cut
SCRIPT = {
    "1": ["1;</think><answer>1</answer><eos>", "</think>1<eos>", "</think><answer>2</answer><eos>", ";"],
    "2": ["</think><answer>2</answer><eos>"],
    "3": ["</think><answer>4</answer><eos>", "</think><answer>3</answer><eos>"],
    "4": [";;"],
    "5": ["</think><answer>5</answer><eos>"],
}


@pytest.fixture
def engine(codec: Codec) -> ScriptedEngine:
    return ScriptedEngine(codec, SCRIPT)


def prompts(codec: Codec, questions: str = "12345") -> list[Prompt]:
    return [number_prompt(codec, question, question) for question in questions]


def run(
    engine: ScriptedEngine, codec: Codec, questions: str = "12345", **how: Any
) -> tuple[dict[str, float], list[Any]]:
    grader = how.pop("grader", Accuracy(codec.template.tags))
    sampling = how.pop("sampling", Sampling(group_size=4))
    return evaluate(engine, grader, prompts(codec, questions), codec, sampling=sampling, seed=7, **how)


def test_numbers_by_hand(engine: ScriptedEngine, codec: Codec) -> None:
    numbers, groups = run(engine, codec)
    # right of four: 1, 4, 2, 0, 4
    assert numbers == pytest.approx(
        {
            "pass@1": 11 / 20,
            "pass@1_error": (sum((mean - 0.55) ** 2 for mean in (0.25, 1, 0.5, 0, 1)) / 4 / 5) ** 0.5,
            "pass@4": 4 / 5,
            # tokens of question 1: 7, 3, 5, 1; of 4: 2 each; of the others 5
            "length_mean": (16 + 20 + 20 + 8 + 20) / 20,
            "think_length_mean": (2 + 0 + 0 + 1 + 4 * 2) / 20,
            "truncated_fraction": 5 / 20,
            "reflection_rate": (1 + 1 + 8) / 20,
            "format_fraction": 1 / 20,  # elsewhere the thinking is empty
        }
    )
    assert [group.prompt.question for group in groups] == list("12345")


def test_one_sample_each(engine: ScriptedEngine, codec: Codec) -> None:
    numbers, _ = run(engine, codec, sampling=Sampling(group_size=1, temperature=0))
    assert numbers["pass@1"] == 3 / 5
    assert not any(name.startswith("pass@") and name not in ("pass@1", "pass@1_error") for name in numbers)
    assert engine.calls[0][1].temperature == 0


def test_seeds_belong_to_prompts(engine: ScriptedEngine, codec: Codec) -> None:
    run(engine, codec)
    run(engine, codec)
    evaluate(engine, Accuracy(codec.template.tags), prompts(codec), codec, sampling=Sampling(group_size=2), seed=8)
    first, second, other = (seeds for _, _, seeds in engine.calls)
    assert first == second == [seed_for(7, "evaluate", place) for place in range(5)]
    assert not set(first) & set(other)


@pytest.mark.parametrize(
    ("verdict", "right"),
    [(1.0, 1), (1, 1), (0.5, 0), (2.0, 0), (RewardScore(1.0), 1), (RewardScore(0.99), 0)],
    ids=str,
)
def test_right_is_a_value_of_one(verdict: Any, right: int, engine: ScriptedEngine, codec: Codec) -> None:
    numbers, _ = run(engine, codec, grader=lambda prompt, completion: verdict)
    assert numbers["pass@1"] == right


def test_a_grader_that_fails_is_not_right(engine: ScriptedEngine, codec: Codec) -> None:
    def grader(prompt: Prompt, completion: Completion) -> float:
        raise RuntimeError("no gold")

    assert run(engine, codec, grader=grader)[0]["pass@1"] == 0


def test_progress_is_handed_on(engine: ScriptedEngine, codec: Codec) -> None:
    told: list[tuple[int, int]] = []
    run(engine, codec, "12", progress=lambda *numbers: told.append(numbers))
    assert told == [(4, 8), (8, 8)]


def over_ranks(count: int, questions: str, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The numbers of every rank, and its groups, when ``count`` ranks share the work."""
    return on_ranks(monkeypatch, [evaluator], [lambda: run(ScriptedEngine(codec, SCRIPT), codec, questions)] * count)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_the_work_and_say_the_same(ranks: int, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = run(ScriptedEngine(codec, SCRIPT), codec)
    results = over_ranks(ranks, "12345", codec, monkeypatch)
    for numbers, _ in results:
        assert numbers == pytest.approx(alone)
    shares = [[group.prompt.question for group in groups] for _, groups in results]
    assert sorted(question for share in shares for question in share) == list("12345")
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_prompts(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    # 30 problems on 32 GPUs, say
    alone, _ = run(ScriptedEngine(codec, SCRIPT), codec, "13")
    for numbers, _ in over_ranks(3, "13", codec, monkeypatch):
        assert numbers == pytest.approx(alone)
