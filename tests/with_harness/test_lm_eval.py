"""lm-evaluation-harness scores what is exported as this project's own evaluation does: `make test-harness`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.coin import coin_rows
from helpers.runs import coin_evaluation
from lightning_r1.evaluate import evaluate
from lightning_r1.text.records import read_jsonl, write_jsonl

TASK = Path(__file__).parents[2] / "recipes" / "lm_eval"


@pytest.mark.harness
def test_it_gives_the_scores_of_our_own_evaluation(base_model: Path, tmp_path: Path) -> None:
    ours = evaluate(
        coin_evaluation(
            tmp_path, base_model, "eval.sampling.temperature=0", "samples=1", "eval.sampling.max_new_tokens=112"
        )
    )
    # the example with other rows, as a user would change it
    task = shutil.copytree(TASK, tmp_path / "task")
    rows = list(coin_rows("heldout"))[:24]
    gold = [(row.question, row.answer["value"]) for row in rows]
    write_jsonl(
        task / "operators.jsonl",
        [{"question": question, "numbers": [value], "target": value} for question, value in gold],
    )

    # the command of the model's own card
    (command,) = re.findall(r"^lm_eval .*$", (base_model / "README.md").read_text(), re.MULTILINE)
    _, *arguments = shlex.split(command.replace("MODEL", str(base_model)).replace("TASK", "operators"))
    more = ["--include_path", str(task), "--output_path", str(tmp_path / "out"), "--log_samples", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-m", "lm_eval", *arguments, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]

    (samples,) = (tmp_path / "out").glob("*/samples_operators_*.jsonl")
    (results,) = (tmp_path / "out").glob("*/results_*.json")
    theirs = {sample["doc"]["question"]: sample["pass@1"] for sample in read_jsonl(samples)}
    problems = read_jsonl(tmp_path / "coin" / "evaluation" / "problems" / "operators.jsonl")
    by_id = {row.id: row.question for row in rows}
    assert theirs == {by_id[problem["prompt_id"]]: float(problem["correct"][0]) for problem in problems}
    score = json.loads(results.read_text())["results"]["operators"]["pass@1,answer"]
    assert score == pytest.approx(ours["after"]["eval/operators/pass@1"], abs=1e-9)
    assert 0 < score < 1  # not one answer to everything
