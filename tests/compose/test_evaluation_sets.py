"""Every evaluation set: it composes for both verbs, holds the paper's protocol, and reads its real schema.

Rows of our own stand in for those of the hub; their columns are the data sets'.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.config.build import build_sets
from lightning_r1.config.build_evaluation import build_evaluation_sets, check_evaluation
from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import CONF, compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.types import Completion

SETS = sorted({file.stem for file in (CONF / "eval").glob("*.yaml")} - {"default", "jsonl", "mini"})
PROGRAMS = {"livecodebench", "codeforces"}
BOX, LETTER = "put your final answer within \\boxed{}.", "ANSWER: LETTER, with the letter of one option."

# a row in each data set's schema, the request behind it, a right completion and a wrong one
REAL: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "aime24": (
        {"id": 60, "problem": "Find $xy$.", "solution": "It is $025$.", "answer": "025", "url": "", "year": "2024"},
        BOX,
        r"<think>5 \cdot 5</think>So \boxed{25}.",
        r"<think>25</think>So \boxed{24}.",
    ),
    "aime25": (
        {"id": 0, "problem": "Find the sum of all bases.", "answer": "70", "solution": "70", "url": "", "year": 2025},
        BOX,
        r"<think>21+49</think>\boxed{70}",
        "<think>70</think>",
    ),
    "math500": (
        {
            "problem": "Convert the point $(0,3)$.", "solution": "...", "subject": "Precalculus", "level": 2,
            "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", "unique_id": "test/precalculus/807.json",
        },
        BOX,
        r"<think>r=3</think>The point is $\boxed{(3,\dfrac{\pi}{2})}$.",
        r"<think>r=3</think>The point is $\boxed{(\dfrac{\pi}{2},3)}$.",
    ),
    "gsm8k": (
        {"question": "Janet has 3 ducks.", "answer": "She sells 9 * 2 = $<<9*2=18>>18.\n#### 1,018"},
        BOX,
        r"<think>9*2</think><answer>\boxed{1018}</answer>",
        r"<think>9*2</think><answer>\boxed{18}</answer>",
    ),
    "gpqa_diamond": (
        {
            "Record ID": "rec06pnAkLOr2t2mp", "Question": "Which energy difference?", "Correct Answer": "10^-4 eV\n",
            "Incorrect Answer 1": "10^-11 eV", "Incorrect Answer 2": "10^-8 eV\n", "Incorrect Answer 3": "10^-9 eV",
        },
        LETTER,
        "<think>A or B?</think>By the uncertainty relation.\nANSWER: {letter}",
        "<think>{letter}</think>ANSWER: E",
    ),
}  # fmt: skip


def evaluation(*overrides: str) -> dict[str, Any]:
    return compose_config("evaluate", ["model.path=org/model", *overrides])


def training(*overrides: str) -> dict[str, Any]:
    return compose_config("train", ["model.path=org/model", "data=countdown", "trainer.max_steps=1", *overrides])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("compose", [evaluation, training])
def test_it_composes_and_binds(name: str, compose: Any) -> None:
    config = compose(f"eval={name}")
    check_signatures(config)
    assert list(config["eval"]["sets"]) == [name]
    check_rules(config)


@pytest.mark.parametrize("compose", [evaluation, training])
def test_the_miniature_is_evaluated_on_three_sets(compose: Any, codec: Codec) -> None:
    config = compose("eval=mini")
    check_signatures(config)
    check_rules(config)
    assert list(config["eval"]["sets"]) == ["operators", "greetings", "mockery"]
    assert all(build_sets(config, codec).values())


def test_every_set_is_tried_on_a_row() -> None:
    generated = {"countdown", "operators"}
    assert set(SETS) == set(REAL) | PROGRAMS | generated


@pytest.mark.parametrize("name", REAL)
def test_it_reads_its_real_schema(name: str, codec: Codec, tmp_path: Path) -> None:
    row, request, right, wrong = REAL[name]
    file = tmp_path / f"{name}.jsonl"
    file.write_text(json.dumps(row) + "\n")
    config = evaluation(f"eval={name}")
    rows = config["eval"]["sets"][name]["rows"]
    rows.update(path=str(file), **{"subset": None} if "subset" in rows else {})
    (prompt,) = build_sets(config, codec)[name]
    assert prompt.source == name
    assert prompt.question.endswith(request)
    assert prompt.question.startswith(str(row.get("problem") or row.get("question") or row.get("Question")))
    grader = Accuracy(codec.template.tags)
    for text, value in ((right, 1), (wrong, 0)):
        written = text.replace("{letter}", str(prompt.answer.get("value")))
        score = grader(prompt, Completion((), (), "stop", text=written))
        assert (score.value, score.outcome.counts) == (value, True), score


def test_the_papers_protocol() -> None:
    names = ["aime24", "aime25", "math500", "gpqa_diamond"]
    config = evaluation(f"eval={','.join(names)}")
    sampling = config["eval"]["sampling"]
    assert (sampling["temperature"], sampling["top_p"], sampling["max_new_tokens"]) == (0.6, 0.95, 32768)
    assert config["eval"]["samples"] == {"aime24": 64, "aime25": 64, "math500": 16, "gpqa_diamond": 64}
    assert compose_config("evaluate", ["eval=livecodebench", "model.path=a/b"])["eval"]["samples"]["livecodebench"] == 8
    assert compose_config("evaluate", ["eval=codeforces", "model.path=a/b"])["eval"]["samples"]["codeforces"] == 16
    # in training as many as the phase can afford
    assert training("eval=aime24")["eval"]["sampling"]["group_size"] == 4
    assert training("eval=aime24", "algo.sampling.max_new_tokens=77")["eval"]["sampling"]["max_new_tokens"] == 77


def test_every_set_is_sampled_as_often_as_it_says(base_model: Path, codec: Codec) -> None:
    generated = ["eval=countdown,operators", f"model.path={base_model}", "limit=3", "template=mini"]

    def sampled(*overrides: str) -> dict[str, tuple[int, int]]:
        sets = build_evaluation_sets(evaluation(*generated, *overrides), codec)
        return {of_set.name: (len(of_set.prompts), of_set.sampling.group_size) for of_set in sets}

    assert sampled() == {"countdown": (3, 4), "operators": (3, 4)}
    assert sampled("+eval.samples.operators=64") == {"countdown": (3, 4), "operators": (3, 64)}
    assert sampled("+eval.samples.operators=64", "samples=2") == {"countdown": (3, 2), "operators": (3, 2)}


def test_several_sets_are_one_evaluation() -> None:
    config = evaluation("eval=countdown,operators")
    assert list(config["eval"]["sets"]) == ["countdown", "operators"]
    assert evaluation("eval=[countdown,operators]") == config
    assert list(training("eval=aime24,gsm8k")["eval"]["sets"]) == ["aime24", "gsm8k"]


def test_a_set_has_to_be_chosen_among_those_there_are() -> None:
    with pytest.raises(ConfigError, match="eval is not chosen; add eval=<one or several of: aime24, aime25"):
        check_evaluation(evaluation())
    with pytest.raises(
        ConfigError, match="eval=aime23: there is no such choice; did you mean aime25\\? There are: aime24"
    ):
        evaluation("eval=aime23")
    with pytest.raises(ConfigError, match="eval=aime23: there is no such choice"):
        evaluation("eval=aime24,aime23")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("samples=0", "samples=0: expected >= 1, or null"),
        ("limit=0", "limit=0: expected >= 1, or null"),
        ("save_every=0", "save_every=0: expected >= 1 completions"),
        ("eval.sampling.temperature=warm", r"eval\.sampling\.temperature='warm': expected a number"),
        ("model=mini_scratch", "random weights answer nothing"),
        ("compare=nowhere", "compare=nowhere: no evaluation was finished there"),
        ("trainer.device=2", r"trainer\.device: there is no such key; did you mean trainer\.devices\?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_read(override: str, message: str) -> None:
    said = ["eval=operators"] if override == "model=mini_scratch" else ["eval=operators", "model.path=org/model"]
    with pytest.raises(ConfigError, match=message) as caught:
        check_evaluation(compose_config("evaluate", [*said, override]))
    assert "\n" not in str(caught.value)


def test_help_names_sets_and_keys() -> None:
    recipe = CONF.parent / "recipes" / "evaluate.py"
    done = subprocess.run([sys.executable, str(recipe), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("aime24, aime25, codeforces", "rescore: false", "compare: null"):
        assert word in done.stdout


def test_rescore_keeps_what_is_stored() -> None:
    with pytest.raises(ConfigError, match="resume=never would move the stored samples aside"):
        check_evaluation(evaluation("eval=operators", "rescore=true", "resume=never"))


def test_an_empty_set_is_told(base_model: Path, tmp_path: Path, codec: Codec) -> None:
    (tmp_path / "none.jsonl").write_text("")
    config = evaluation("eval=jsonl", f"eval.sets.heldout.path={tmp_path}/none.jsonl", f"model.path={base_model}")
    with pytest.raises(ConfigError, match=r"eval\.sets\.heldout: there are no problems in it"):
        build_evaluation_sets(config, codec)


def test_a_prompt_longer_than_the_context_is_told(base_model: Path, tmp_path: Path, codec: Codec) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"question": "7+" * 200, "answer": 7}) + "\n")
    config = evaluation("eval=jsonl", f"eval.sets.heldout.path={tmp_path}/long.jsonl", f"model.path={base_model}")
    with pytest.raises(ConfigError, match=r"eval\.sets\.heldout: a prompt has 401 tokens, the model's context 256"):
        build_evaluation_sets(config, codec)
