"""Evaluation sets whose answers are programs, from rows in their real schemas to numbers, run in a real sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.text_codec import text_codec
from lightning_r1 import evaluate as verb
from lightning_r1.config import build_evaluation
from lightning_r1.config.build import build_rewards, build_sets
from lightning_r1.config.build_graders import build_grader
from lightning_r1.config.compose import compose_config
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.base import InProcessScorer
from lightning_r1.text.records import read_jsonl
from lightning_r1.types import Sampling

QUICK = ["eval.code.time_limit_s=1.0", "eval.code.time_factor=1.0", "eval.code.max_time_limit_s=1.0"]
HERE = "reward.workers.workers=0"

SUM = "a, b = map(int, input().split())\nprint(a + b)"
FITS = "class Solution:\n    def fits(self, xs: List[int], name: str) -> bool:\n        return len(xs) == len(name)"

LIVECODEBENCH: dict[str, Any] = {
    "question_title": "Sum", "question_content": "Add.", "platform": "atcoder", "question_id": "abc_a",
    "contest_id": "abc", "contest_date": "2024-09-01T00:00:00", "starter_code": "", "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "4 5\n", "output": "9\n", "testtype": "stdin"}]), "metadata": "{}",
}  # fmt: skip
LIVECODEBENCH_CALL: dict[str, Any] = {
    **LIVECODEBENCH, "question_content": "Fits?", "question_id": "lc_1", "starter_code": "class Solution: ...",
    "public_test_cases": json.dumps([{"input": '[1, 2]\n"ab"', "output": "true", "testtype": "functional"}]),
    "private_test_cases": json.dumps([{"input": '[1, 2]\n"a"', "output": "false", "testtype": "functional"}]),
    "metadata": '{"func_name": "fits"}',
}  # fmt: skip
CODEFORCES: dict[str, Any] = {
    "id": "1999/A", "time_limit": 2.0, "memory_limit": 256.0, "title": "Two Sum", "description": "Add.",
    "input_format": "Two numbers.", "output_format": "Their sum.", "interaction_format": None, "note": None,
    "examples": [{"input": "1 2\n", "output": "3\n"}], "rating": 800, "official_tests_complete": True,
    "official_tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}],
    "input_mode": "stdio", "generated_checker": None,
}  # fmt: skip
APPS: dict[str, Any] = {
    "id": 0, "question": "Add.", "starter_code": "",
    "input_output": json.dumps({"inputs": ["1 2\n", "4 5"], "outputs": ["3\n", ["9"]]}),
}  # fmt: skip


def says(source: str) -> str:
    return f"so</think>\n```python\n{source}\n```<eos>"


def evaluation(choice: str, rows: list[dict[str, Any]], folder: Path, *overrides: str) -> dict[str, Any]:
    """The composed config of an evaluation, its set read from here."""
    file = folder / f"{choice}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [f"eval={choice}", "model.path=org/model", f"paths.output_dir={folder}", *QUICK, *overrides]
    config = compose_config("evaluate", said)
    (node,) = config["eval"]["sets"].values()
    node.update(path=str(file), bad_rows="refuse")
    return config


def run(config: dict[str, Any], answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The verb with an engine that says ``answers``, by what the question begins with; numbers by name."""
    codec = text_codec()
    (prompts,) = build_sets(config, codec).values()
    script = {
        prompt.question: next(texts for start, texts in answers.items() if prompt.question.startswith(start))
        for prompt in prompts
    }
    engine = ScriptedEngine(codec, script)
    monkeypatch.setattr(verb, "build_codec", lambda config: codec)
    monkeypatch.setattr(verb, "build_sampler", lambda config, device: engine)
    monkeypatch.setattr(build_evaluation, "context_length", lambda *_: 100_000)
    (name,) = config["eval"]["sets"]
    after = verb.evaluate(config)["after"]
    return {key.removeprefix(f"eval/{name}/"): value for key, value in after.items()}


WRONG = ("print(3)", "a, b = map(int, input().split())\nprint(a * b + 1)", "import sys\nsys.exit(0)", "print(")


def test_livecodebench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = evaluation("livecodebench", [LIVECODEBENCH, LIVECODEBENCH_CALL], tmp_path, HERE, "samples=4")
    answers = {
        "Add.": [says(SUM), *map(says, WRONG[:3])],
        "Fits?": [
            says(FITS),
            says(FITS.replace("==", "!=")),
            says("def fits(xs, name): return True"),
            "no program<eos>",
        ],
    }
    numbers = run(config, answers, monkeypatch)
    assert numbers["pass@1"] == 2 / 8
    assert numbers["pass@4"] == 1
    assert numbers["ungraded_fraction"] == 0
    assert not [name for name in numbers if name.startswith("cons@")]  # two programs are no vote for one answer
    samples = read_jsonl(tmp_path / config["name"] / "samples" / "livecodebench.jsonl")
    assert [sample["correct"] for sample in samples] == [True, False, False, False] * 2
    assert [sample["outcome"] for sample in samples] == ["ok"] * 7 + ["wrong_format"]
    assert {sample["answer"] for sample in samples} == {None}
    # graded anew, the same
    again = run({**config, "rescore": True}, answers, monkeypatch)
    assert again == numbers


def test_codeforces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = evaluation("codeforces", [CODEFORCES], tmp_path, HERE, "samples=2")
    numbers = run(config, {"# Two Sum": [says(SUM), says("while True: pass")]}, monkeypatch)
    assert numbers["pass@1"] == 1 / 2
    assert "item_response_estimate" in numbers


def test_apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["eval.sets.codeforces.reader=apps", "+eval.sets.codeforces.name=apps"]
    config = evaluation("codeforces", [APPS], tmp_path, HERE, "samples=5", *more)
    numbers = run(config, {"Add.": [says(SUM), *map(says, WRONG)]}, monkeypatch)
    assert (numbers["pass@1"], numbers["ungraded_fraction"]) == (pytest.approx(1 / 5), 0)


def test_a_set_may_have_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"question": "Add.", "answer": {"kind": "code", "tests": [{"input": "1 2", "output": "3"}]}},
        {"question": "1+2?", "answer": {"kind": "number", "value": 3}},
    ]
    config = evaluation("jsonl", rows, tmp_path, "samples=2", "eval.sets.heldout.path=x")
    config["eval"]["sets"]["heldout"].pop("bad_rows")
    answers = {"Add.": [says(SUM), r"</think>\boxed{3}<eos>"], "1+2?": [r"</think>\boxed{3}<eos>", says("print(3)")]}
    assert run(config, answers, monkeypatch)["pass@1"] == 2 / 4


def test_the_grader_has_what_the_prompts_need(codec: Codec) -> None:
    config = compose_config("evaluate", ["eval=codeforces", "model.path=org/model", *QUICK])
    number = codec.prompt("1", {"kind": "number", "value": 1}, id="a")
    program = codec.prompt("1", {"kind": "code", "tests": [{"input": "", "output": "1"}]}, id="b")
    alone = build_grader(config, codec, {"numbers": [number]}, InProcessScorer())
    both = build_grader(config, codec, {"numbers": [number], "programs": [program]}, InProcessScorer())
    assert list(alone.rewards) == ["accuracy"]  # no sandbox where none is needed
    assert list(both.rewards) == ["accuracy", "code"]
    assert [list(both.asked(prompt)) for prompt in (number, program)] == [["accuracy"], ["code"]]
    options = SimpleNamespace(**vars(both.rewards["code"]))
    assert (options.mode, options.time_limit_s, options.languages, options.max_tests) == ("all", 1.0, ("python",), None)


def test_in_training_a_prompt_has_accuracy_or_code() -> None:
    said = ["model.path=org/model", "data=mbpp", "reward=rules_and_code", "trainer.max_steps=1", HERE]
    codec = text_codec()
    suite = build_rewards(compose_config("train", said), codec)
    gold = {"kind": "code", "function": "f", "tests": [{"input": "[1]", "output": "2"}]}
    prompts = [codec.prompt("f?", gold, id="a"), codec.prompt("1?", {"kind": "number", "value": 1}, id="b")]
    script = {
        "f?": [says("def f(x): return 2 * x"), says("def f(x): return 3")],
        "1?": ["so</think><answer>1</answer><eos>", "2<eos>"],
    }
    try:
        groups = ScriptedEngine(codec, script).generate(prompts, Sampling(group_size=2), seeds=[0, 1])
        programs, numbers = suite.score(groups)
    finally:
        suite.close()
    assert [sorted(one.breakdown) for one in (programs, numbers)] == [["code", "format"], ["accuracy", "format"]]
    assert [score.value for score in programs.breakdown["code"]] == [1, 0]
    assert numbers.rewards == (2, 0)  # the format is right too
