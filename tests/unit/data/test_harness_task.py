"""The example task for lm-evaluation-harness: its rows are our held-out problems, its grader agrees with ours."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest

from helpers.prompts import mini_codec
from lightning_r1.data.operators import OperatorsTask, operators_rows
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion

FILE = Path(__file__).parents[3] / "recipes" / "lm_eval" / "operators.py"


@pytest.fixture(scope="module")
def task() -> ModuleType:
    spec = importlib.util.spec_from_file_location("operators_task", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_rows_are_the_held_out_problems(task: ModuleType) -> None:
    rows = [(row["question"], row["numbers"], row["target"]) for row in task.problems()["test"]]
    ours = [(row.question, row.answer["numbers"], row.answer["target"]) for row in operators_rows("heldout")]
    assert rows == ours


def test_its_grader_agrees_with_ours(task: ModuleType) -> None:
    rng, codec, seen = random.Random(0), mini_codec(), set()
    problems = OperatorsTask().problems("heldout")
    for problem in rng.sample(problems, 40):
        answers = [attempt.expression() for attempt in problem.attempts]
        answers += [answer[::-1] for answer in answers] + [f"({answers[0]}", "", "2(5)", "2**5", str(problem.target)]
        prompt = codec.prompt(problem.question, problem.answer, id="x")
        row = {"numbers": list(problem.numbers), "target": problem.target}
        for answer in answers:
            text = f"<think>hm</think><answer>{answer}</answer>"
            completion = Completion((), (), "stop", text, 0)
            ours = Accuracy(Tags())(prompt, completion)
            value = ours.value
            assert task.graded(row, [answer]) == {"pass@1": value}, (problem.question, answer)
            seen.add(value)
    assert seen == {0.0, 1.0}
