"""Evaluation with an engine that follows a script."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from helpers.ranks import on_ranks
from lightning_r1.evaluation import evaluator
from lightning_r1.evaluation.evaluator import Evaluation, evaluate, grade_again
from lightning_r1.evaluation.intervals import share_interval
from lightning_r1.evaluation.rating import item_response_rating
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.outcomes import StopAt
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import seed_for
from lightning_r1.rollout.statistics import completion_statistics
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore, Sampling

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


def accuracy(codec: Codec) -> RewardSuite:
    return RewardSuite({"accuracy": Accuracy(codec.template.tags)})


def run(engine: ScriptedEngine, codec: Codec, questions: str = "12345", **how: Any) -> Evaluation:
    grader = RewardSuite({"accuracy": how.pop("grader", Accuracy(codec.template.tags))})
    sampling = how.pop("sampling", Sampling(group_size=4))
    return evaluate(engine, grader, prompts(codec, questions), codec, sampling=sampling, seed=7, **how)


def test_numbers_by_hand(engine: ScriptedEngine, codec: Codec) -> None:
    result = run(engine, codec)
    # right of four: 1, 4, 2, 0, 4. Question 1 votes 1, 2 and once not at all; 3 is a tie; 4 never votes
    values = {"pass@1": (0.25, 1, 0.5, 0, 1), "pass@4": (1, 1, 1, 0, 1), "cons@4": (0.5, 1, 0.5, 0, 1)}
    expected = {
        "pass@1_error": (sum((mean - 0.55) ** 2 for mean in (0.25, 1, 0.5, 0, 1)) / 4 / 5) ** 0.5,
        # tokens of question 1: 7, 3, 5, 1; of 4: 2 each; of the others 5
        "length_mean": (16 + 20 + 20 + 8 + 20) / 20,
        "think_length_mean": (2 + 0 + 0 + 1 + 4 * 2) / 20,
        "truncated_fraction": 5 / 20,
        "reflection_rate": (1 + 1 + 8) / 20,
        "format_fraction": 1 / 20,  # elsewhere the thinking is empty
        "ungraded_fraction": 0,
    }
    for name, of_problems in values.items():
        low, high = share_interval(of_problems)
        expected |= {name: sum(of_problems) / 5, f"{name}_low": low, f"{name}_high": high}
    assert result.numbers == pytest.approx(expected)
    assert [sample.prompt_id for sample in result.samples] == [
        f"test/{question}" for question in "12345" for _ in "1234"
    ]


def test_the_statistics_are_those_of_rollouts(engine: ScriptedEngine, codec: Codec) -> None:
    numbers = run(engine, codec).numbers
    groups = engine.generate(prompts(codec), Sampling(group_size=4), seeds=[0] * 5)
    completions = [completion for group in groups for completion in group.completions]
    for name, value in completion_statistics(completions, codec).items():
        assert numbers[name] == pytest.approx(value), name


def test_a_sample_says_what_happened(engine: ScriptedEngine, codec: Codec) -> None:
    right, wrong_format, wrong, cut = run(engine, codec, "1").samples
    assert asdict(right) == {
        "prompt_id": "test/1",
        "prompt": "1<think>",
        "completion": "<think>1;</think><answer>1</answer>",
        "answer": "1",
        "correct": True,
        "outcome": "ok",
        "finish_reason": "stop",
        "tokens": 7,
        "think_tokens": 2,
        "strict_format": True,
        "reflections": 1,
        "language_share": None,
    }
    assert (wrong_format.answer, wrong_format.outcome) == (None, "wrong_format")
    assert (wrong.answer, wrong.correct, wrong.outcome) == ("2", False, "ok")
    assert (cut.answer, cut.finish_reason) == (None, "length")


def test_words_of_the_thinking_are_counted(codec: Codec) -> None:
    engine = ScriptedEngine(codec, {"1": ["x</think><eos>", "ab x ba</think><eos>", "12=3</think><eos>"]})
    one = number_prompt(codec, "1", 1)
    grader, sampling = accuracy(codec), Sampling(group_size=3)
    result = evaluate(engine, grader, [one], codec, sampling=sampling, seed=0)
    assert [sample.language_share for sample in result.samples] == [None, 1, None]
    assert result.numbers["language_share"] == 1  # over the completion that thinks in words
    chinese = replace(one, language="zh")
    assert evaluate(engine, grader, [chinese], codec, sampling=sampling, seed=0).numbers["language_share"] == 0
    with pytest.raises(ValueError, match="language='xx'"):
        evaluate(engine, grader, [replace(one, language="xx")], codec, sampling=sampling, seed=0)


def test_problems_with_ratings_have_an_estimate(engine: ScriptedEngine, codec: Codec) -> None:
    rated = [replace(p, answer={**p.answer, "rating": 1000 + 100 * i}) for i, p in enumerate(prompts(codec))]
    grader, sampling = accuracy(codec), Sampling(group_size=4)
    numbers = evaluate(engine, grader, rated, codec, sampling=sampling, seed=7).numbers
    estimate = item_response_rating([1000, 1100, 1200, 1300, 1400], [0.25, 1, 0.5, 0, 1])
    assert (numbers["item_response_estimate"], numbers["item_response_error"]) == (estimate.rating, estimate.error)
    half = [*rated[:4], prompts(codec)[4]]
    assert "item_response_estimate" not in evaluate(engine, grader, half, codec, sampling=sampling, seed=7).numbers


def test_stored_samples_are_graded_to_the_same(engine: ScriptedEngine, codec: Codec) -> None:
    samples = run(engine, codec).samples
    again = grade_again(accuracy(codec), prompts(codec), samples, codec.template)
    assert again == samples
    # another grader, another verdict; what was sampled stays
    stricter = grade_again(
        RewardSuite({"none": lambda prompt, completion: 0.0}), prompts(codec), samples, codec.template
    )
    assert [replace(sample, correct=False, outcome="ok") for sample in samples] == stricter


def test_samples_of_another_prompt_are_not_graded_again(engine: ScriptedEngine, codec: Codec) -> None:
    samples = run(engine, codec).samples
    changed = [codec.prompt("other", {"kind": "number", "value": 1}, id=prompt.id) for prompt in prompts(codec)]
    for others in (changed, prompts(codec, "2345")):
        with pytest.raises(ValueError, match="prompt 'test/1' is not what it was when it was sampled"):
            grade_again(accuracy(codec), others, samples, codec.template)


def test_two_prompts_with_one_id_are_refused(engine: ScriptedEngine, codec: Codec) -> None:
    with pytest.raises(ValueError, match="2 prompts with the id 'test/3'"):
        run(engine, codec, "12343")
    assert engine.calls == []


def test_one_sample_each(engine: ScriptedEngine, codec: Codec) -> None:
    numbers = run(engine, codec, sampling=Sampling(group_size=1, temperature=0)).numbers
    assert numbers["pass@1"] == 3 / 5
    assert {name for name in numbers if "@" in name} == {"pass@1", "pass@1_error", "pass@1_low", "pass@1_high"}
    assert engine.calls[0][1].temperature == 0


def test_seeds_belong_to_prompts(engine: ScriptedEngine, codec: Codec) -> None:
    run(engine, codec)
    run(engine, codec)
    evaluate(engine, accuracy(codec), prompts(codec), codec, sampling=Sampling(group_size=2), seed=8)
    first, second, other = (seeds for _, _, seeds in engine.calls)
    assert first == second == [seed_for(7, "evaluate", f"test/{question}") for question in "12345"]
    assert not set(first) & set(other)


@pytest.mark.parametrize(
    ("verdict", "right"),
    [(1.0, 1), (1, 1), (0.5, 0), (2.0, 0), (RewardScore(1.0), 1), (RewardScore(0.99), 0)],
    ids=str,
)
def test_right_is_a_value_of_one(verdict: Any, right: int, engine: ScriptedEngine, codec: Codec) -> None:
    assert run(engine, codec, grader=lambda prompt, completion: verdict).numbers["pass@1"] == right


def test_a_grader_that_fails_is_not_right(engine: ScriptedEngine, codec: Codec) -> None:
    def grader(prompt: Prompt, completion: Completion) -> float:
        raise RuntimeError("no gold")

    numbers = run(engine, codec, grader=grader).numbers
    assert (numbers["pass@1"], numbers["ungraded_fraction"]) == (0, 1)


def test_progress_is_handed_on(engine: ScriptedEngine, codec: Codec) -> None:
    told: list[tuple[int, int]] = []
    run(engine, codec, "12", progress=lambda *numbers: told.append(numbers))
    assert told == [(4, 8), (8, 8)]


def over_ranks(count: int, questions: str, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every rank returns when ``count`` ranks share the work, and how many prompts each sampled."""

    def work() -> tuple[Evaluation, int]:
        engine = ScriptedEngine(codec, SCRIPT)
        result = run(engine, codec, questions)
        return result, sum(len(asked) for asked, _, _ in engine.calls)

    return on_ranks(monkeypatch, [evaluator], [work] * count)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_the_work_and_say_the_same(ranks: int, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = run(ScriptedEngine(codec, SCRIPT), codec)
    results = over_ranks(ranks, "12345", codec, monkeypatch)
    assert [result for result, _ in results] == [alone] * ranks
    shares = [prompts for _, prompts in results]
    assert sum(shares) == 5
    assert max(shares) - min(shares) <= 1


def test_more_ranks_than_prompts(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    # 30 problems on 32 GPUs, say
    alone = run(ScriptedEngine(codec, SCRIPT), codec, "13")
    assert [result for result, _ in over_ranks(3, "13", codec, monkeypatch)] == [alone] * 3


def fails(prompt: Prompt, completion: Completion) -> float | None:
    if prompt.question == "5":
        return None
    raise KeyError("solution")


def test_a_grader_that_fails_too_often_ends_the_evaluation_on_every_rank(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = RewardSuite({"accuracy": fails}, stop_at=StopAt(crash=0.9))

    def work() -> Any:
        try:
            return evaluate(
                ScriptedEngine(codec, SCRIPT), grader, prompts(codec), codec, sampling=Sampling(group_size=1), seed=0
            )
        except RewardError as error:
            return str(error)

    # the second rank has the questions 2 and 4, and the first 1, 3 and 5, of which the last is only unscorable
    for said in on_ranks(monkeypatch, [evaluator], [work] * 2):
        assert "reward.rewards.accuracy: 2 of 2 completions ended in crash (reward.stop_at.crash=0.9)" in said


def test_what_nobody_can_grade_is_a_number_of_the_set(codec: Codec) -> None:
    assert run(ScriptedEngine(codec, SCRIPT), codec, "5", grader=fails).numbers["ungraded_fraction"] == 1


def test_each_prompt_has_its_own_grader(engine: ScriptedEngine, codec: Codec) -> None:
    class Only:
        def __init__(self, questions: str) -> None:
            self.questions = questions

        def is_for(self, prompt: Prompt) -> bool:
            return prompt.question in self.questions

        def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
            return RewardScore(1.0) if prompt.question == "2" else RewardScore(0.0, Outcome.WRONG_FORMAT)

    grader = RewardSuite({"one": Only("12"), "other": Only("345")})
    result = evaluate(engine, grader, prompts(codec), codec, sampling=Sampling(group_size=1), seed=0)
    assert [(one.correct, one.outcome) for one in result.samples] == [
        (question == "2", "ok" if question == "2" else "wrong_format") for question in "12345"
    ]
