"""Rows and grader of the task in operators.yaml, for lm-evaluation-harness, which does not need this project."""

import json
import re
from pathlib import Path
from typing import Any

from datasets import Dataset


def problems(**_: Any) -> dict[str, Dataset]:
    """The rows of operators.jsonl: ``question``, ``numbers`` in their order, ``target``."""
    with Path(__file__).with_name("operators.jsonl").open(encoding="utf-8") as rows:
        return {"test": Dataset.from_list([json.loads(row) for row in rows])}


def graded(row: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """1 for an expression of ``+ - *`` that uses the numbers in their order and gives the target, else 0."""
    expression = answers[0].replace(" ", "")
    numbers = [int(number) for number in re.findall(r"\d+", expression)]
    if numbers != row["numbers"] or not re.fullmatch(r"[\d+*()-]+", expression) or "**" in expression:
        return {"pass@1": 0.0}
    try:
        value = eval(expression, {"__builtins__": {}})
    except (SyntaxError, TypeError):  # TypeError: a number that is called, 2(5)
        return {"pass@1": 0.0}
    return {"pass@1": float(value == row["target"])}
