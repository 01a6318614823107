"""Every data config on rows of our own, written in its data set's real schema, built as a run builds it."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from helpers.hub import hub_copy
from lightning_r1.config.compose import CONF
from lightning_r1.data.rows import DataError, Row
from lightning_r1.data.sources import SourceRows
from lightning_r1.types import Preference, SafetyLabel, Trace


def data_of(choice: str, path: str, *overrides: str, rows: str = "rows") -> Any:
    """The data module of a config, reading from here without leaving anything in a cache."""
    node = OmegaConf.load(CONF / "data" / f"{choice}.yaml")
    for parent in node.pop("defaults", ["_self_"])[:-1]:
        node = OmegaConf.merge(OmegaConf.load(CONF / "data" / f"{parent}.yaml"), node)
    config = OmegaConf.create({"seed": 0, "data": node})
    place = [f"data.{rows}.path={path}", f"data.{rows}.streaming=true"]
    config = OmegaConf.merge(config, OmegaConf.from_dotlist([*place, *overrides]))
    return instantiate(config.data, _convert_="all")


def rows_of(choice: str, path: str, *overrides: str) -> list[Row]:
    return list(data_of(choice, path, *overrides).rows)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt") as file:
            file.write(text)
    else:
        path.write_text(text)
    return str(path)


def test_gsm8k(tmp_path: Path) -> None:
    train = [
        {
            "question": "A crate holds 1,200 figs. How many do two hold?",
            "answer": "Two hold 2*1200=<<2*1200=2400>>2400.\n#### 2,400",
        },
        {"question": "Mia owes 3 coins. What has she?", "answer": "#### would be 3.\nLess than nothing.\n#### -3"},
    ]
    path = hub_copy(tmp_path / "gsm8k", {"main": {"train": train, "test": train[:1]}, "socratic": {"train": train}})
    assert rows_of("gsm8k", path) == [
        Row("gsm8k/0", train[0]["question"], {"kind": "number", "value": "2,400"}),
        Row("gsm8k/1", train[1]["question"], {"kind": "number", "value": "-3"}),
    ]
    assert len(rows_of("gsm8k", path, "data.rows.split=test")) == 1

    path = hub_copy(tmp_path / "broken", {"main": {"train": [train[0], {"question": "Why?", "answer": "Because."}]}})
    with pytest.raises(DataError, match=r"broken main train row 1: key 'answer' is 'Because\.', expected '#### '"):
        rows_of("gsm8k", path)


def test_math(tmp_path: Path) -> None:
    facts = {"level": "Level 2", "type": "Algebra"}
    rows = [
        {"problem": "Halve $x$.", "solution": r"Not \boxed{x} but $\boxed{\frac{x}{2}}$, a half.", **facts},
        {"problem": "Prove it.", "solution": "It is plain.", **facts},
        {"problem": "Sum it.", "solution": rf"So $\boxed{{{'x+' * 200}1}}$.", **facts},
    ]
    path = hub_copy(tmp_path / "math", {"default": {"train": rows, "test": rows}})
    data = data_of("math", path)
    assert list(data.rows) == [Row("math/0", "Halve $x$.", {"kind": "math", "value": r"\frac{x}{2}"})]
    assert data.rows.left_out == {"unusable": 2}
    with pytest.raises(DataError, match=r"row 1: key 'solution' is 'It is plain\.', expected \\boxed\{\}"):
        rows_of("math", path, "data.rows.bad_rows=refuse")


def test_deepscaler(tmp_path: Path) -> None:
    rows = [
        {"problem": "How long is it?", "answer": r"2\sqrt{3}", "solution": "By Pythagoras."},
        {"problem": "How long is it?", "answer": r"\sqrt{12}", "solution": "Or so."},
        {"problem": "How many?", "answer": "", "solution": ""},
        {"problem": "How many then?", "answer": "7", "solution": ""},
    ]
    (tmp_path / "deepscaler.json").write_text(json.dumps(rows))  # the hub's copy is one JSON list
    data = data_of("deepscaler", str(tmp_path / "deepscaler.json"))
    assert list(data.rows) == [
        Row("deepscaler/0", "How long is it?", {"kind": "math", "value": r"2\sqrt{3}"}),
        Row("deepscaler/3", "How many then?", {"kind": "math", "value": "7"}),
    ]
    assert data.rows.left_out == {"asked before": 1, "unusable": 1}


DAPO_PROMPT = (
    "Solve the following math problem step by step. End with a line of this form.\n\n{problem}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


def dapo_row(problem: str, answer: str, index: str) -> dict[str, Any]:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": DAPO_PROMPT.format(problem=problem), "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": index},
    }


def test_dapo_in_both_forms(tmp_path: Path) -> None:
    raw = [
        dapo_row("Count the primes\n\nbelow 10.", "4", "a-1"),
        dapo_row("求最小的偶素数。", "2", "a-2"),
        dapo_row("Count the primes\n\nbelow 10.", "4", "a-1"),
    ]
    expected = [
        Row("dapo_math/a-1", "Count the primes\n\nbelow 10.", {"kind": "number", "value": "4"}, language="en"),
        Row("dapo_math/a-2", "求最小的偶素数。", {"kind": "number", "value": "2"}, language="zh"),
    ]
    path = hub_copy(tmp_path / "raw", {"all": {"train": raw}})
    assert rows_of("dapo_math", path) == expected

    processed = [
        {**row, "prompt": text, "solution": row["reward_model"]["ground_truth"], "source_prompt": row["prompt"]}
        for row, text in zip(raw, ["Count the primes\n\nbelow 10.", "求最小的偶素数。"], strict=False)
    ]
    path = hub_copy(tmp_path / "processed", {"all": {"train": processed}, "en": {"train": processed[:1]}})
    assert rows_of("dapo_math", path) == expected
    assert rows_of("dapo_math", path, "data.rows.subset=en") == expected[:1]


def test_openr1_math_traces(tmp_path: Path) -> None:
    facts = {"solution": "...", "problem_type": "Algebra", "question_type": "math-word-problem", "source": "olympiads"}
    right, wrong = "<think>\n1+1=2\n</think>\n\n\\boxed{2}", "<think>\n3?\n</think>\n\n\\boxed{3}"
    rows = [
        {
            "problem": "1+1?", "answer": "2", "uuid": "u-1", **facts,
            "generations": [wrong, right, "<think>\n1+1+"],
            "is_reasoning_complete": [True, True, False],
            "correctness_math_verify": [False, True, True],
            "correctness_llama": None, "finish_reasons": ["stop", "stop", "length"], "correctness_count": 2,
            "messages": [{"content": "1+1?", "role": "user"}, {"content": right, "role": "assistant"}],
        },
        {
            "problem": "Prove it.", "answer": "", "uuid": "u-2", **facts,
            "generations": [right], "is_reasoning_complete": [True], "correctness_math_verify": [True],
            "correctness_llama": None, "finish_reasons": None, "correctness_count": 1, "messages": [],
        },
    ]  # fmt: skip
    path = hub_copy(tmp_path / "openr1", {"default": {"train": rows}, "extended": {"train": rows[:1]}})
    data = data_of("openr1_math_traces", path, rows="sources.openr1_math")
    assert list(data.sources["openr1_math"]) == [
        Trace(
            "openr1_math/u-1/1", "1+1?", right, {"kind": "math", "value": "2"}, provenance={"dataset": path}
        )
    ]  # fmt: skip
    assert data.sources["openr1_math"].left_out == {"unusable": 1}


def codeforces_row(**fields: Any) -> dict[str, Any]:
    return {
        "id": "1999/A", "aliases": None, "contest_id": "1999", "contest_name": "Round 1", "contest_type": "CF",
        "contest_start": 1, "contest_start_year": 2024, "index": "A", "time_limit": 2.0, "memory_limit": 256.0,
        "title": "Two Sum", "description": "Add two numbers.", "input_format": "Two numbers.",
        "output_format": "Their sum.", "interaction_format": None, "note": "Small ones.",
        "examples": [{"input": "1 2\n", "output": "3\n"}], "editorial": None, "rating": 800, "tags": ["math"],
        "testset_size": 2, "official_tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}],
        "official_tests_complete": True, "input_mode": "stdio", "generated_checker": None, "executable": True,
        "generated_tests": 0,
        **fields,
    }  # fmt: skip


def test_codeforces(tmp_path: Path) -> None:
    rows = [
        codeforces_row(),
        codeforces_row(id="1/B", generated_checker="print(1)"),
        codeforces_row(id="1/C", input_mode="file"),
        codeforces_row(id="1/D", official_tests_complete=False),
        codeforces_row(id="1/E", interaction_format="Ask and flush."),
        codeforces_row(id="1/F", official_tests=[]),
        codeforces_row(id="1/G", note=None, time_limit=None, rating=None),
    ]
    data = data_of("codeforces", hub_copy(tmp_path / "codeforces", {"verifiable": {"train": rows}}))
    first, last = data.rows
    assert data.rows.left_out == {"unusable": 5}
    assert (first.id, last.id) == ("codeforces/1999/A", "codeforces/1/G")
    assert first.question == (
        "# Two Sum\n\nAdd two numbers.\n\n## Input\nTwo numbers.\n\n## Output\nTheir sum.\n\n## Note\nSmall ones.\n\n"
        "## Example\n```\n1 2\n```\n```\n3\n```\n\n"
        "Write a program in Python that reads from standard input and writes to standard output."
    )
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5\n", "output": "9\n"}]
    limits = {"time_limit_s": 2.0, "memory_limit_mb": 256.0, "rating": 800}
    assert first.answer == {"kind": "code", "tests": tests, **limits}
    assert last.answer == {"kind": "code", "tests": tests, "memory_limit_mb": 256.0}
    assert "Note" not in last.question


def test_apps(tmp_path: Path) -> None:
    facts = {"solutions": "[]", "difficulty": "interview", "url": "none"}
    doubled = {"fn_name": "twice", "inputs": [[1], [[2, 3]]], "outputs": [2, [2, 3, 2, 3]]}
    rows = [
        {
            "id": 0, "question": "Print the sum.\n", "starter_code": "", **facts,
            "input_output": json.dumps({"inputs": ["1 2\n", ["3 4", "5"]], "outputs": ["3\n", ["7", "5"]]}),
        },
        {"id": 1, "question": "No tests.", "starter_code": "", "input_output": "", **facts},
        {"id": 2, "question": "Broken.", "starter_code": "", "input_output": "{", **facts},
        {
            "id": 3, "question": "Twice.", "starter_code": "def twice(x):\n\t", **facts,
            "input_output": json.dumps(doubled),
        },
    ]  # fmt: skip
    path = jsonl(tmp_path / "train.jsonl", rows)
    program, function = rows_of("apps", path)
    assert (program.id, function.id) == ("apps/1", "apps/4")
    assert program.question.startswith("Print the sum.\n\nWrite a program")
    assert program.answer == {
        "kind": "code",
        "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "3 4\n5", "output": "7\n5"}],
    }
    assert function.question == "Twice.\n\nWrite a Python function `twice`. Begin with:\n```\ndef twice(x):\n```"
    assert function.answer == {
        "kind": "code",
        "function": "twice",
        "tests": [{"input": "[1]", "output": "2"}, {"input": "[[2, 3]]", "output": "[2, 3, 2, 3]"}],
    }
    with pytest.raises(DataError, match=r"line 2: key 'input_output': answer\.tests is missing or empty"):
        rows_of("apps", path, "data.rows.bad_rows=refuse")
    with pytest.raises(DataError, match=r"line 1: key 'input_output' is '\{', expected JSON"):
        rows_of("apps", jsonl(tmp_path / "broken.jsonl", [rows[2]]), "data.rows.bad_rows=refuse")


def test_apps_values_in_lists_of_their_own(tmp_path: Path) -> None:
    def outputs(*values: Any) -> list[str]:
        tests = {"fn_name": "f", "inputs": [[1]] * len(values), "outputs": list(values)}
        facts = {"id": 0, "solutions": "[]", "difficulty": "x", "url": "x", "starter_code": ""}
        row = {"question": "?", "input_output": json.dumps(tests), **facts}
        (read,) = rows_of("apps", jsonl(tmp_path / "train.jsonl", [row]))
        return [test["output"] for test in read.answer["tests"]]

    assert outputs([2], [[3]]) == ["2", "[3]"]
    assert outputs([2], 3) == ["[2]", "3"]
    assert outputs([2], [3, 4]) == ["[2]", "[3, 4]"]


def mbpp_row(*asserts: str, **fields: Any) -> dict[str, Any]:
    return {
        "task_id": 7, "text": "Add a number to each. ", "code": "def add_all(xs, x): ...", "test_list": list(asserts),
        "test_setup_code": "", "challenge_test_list": [], **fields,
    }  # fmt: skip


def test_mbpp(tmp_path: Path) -> None:
    good = ["assert add_all([1, 2],3) == (4, 5)", "assert add_all([], -1)==[]"]
    rows = [
        mbpp_row(*good),
        mbpp_row("assert add_all((1, 2), 3) == 1"),
        mbpp_row("assert set(add_all([1], 3)) == {4}"),
        mbpp_row(*good, "assert add([1], 3) == 1"),
        mbpp_row(*good, test_setup_code="import math"),
        mbpp_row(),
    ]
    data = data_of("mbpp", hub_copy(tmp_path / "mbpp", {"full": {"train": rows}, "sanitized": {"train": rows[:1]}}))
    (only,) = data.rows
    assert data.rows.left_out == {"unusable": 5}
    assert only.id == "mbpp/7"
    assert only.question == (
        "Add a number to each.\n\nWrite a Python function `add_all`. For example:\n"
        "```\nassert add_all([1, 2],3) == (4, 5)\n```"
    )
    assert only.answer == {
        "kind": "code",
        "function": "add_all",
        "tests": [{"input": "[[1, 2], 3]", "output": "[4, 5]"}, {"input": "[[], -1]", "output": "[]"}],
    }
    for row, message in (
        (rows[1], r"key 'test_list': assert 0: JSON has no argument of type tuple"),
        (rows[2], r"key 'test_list': assert 0: expected `assert function\(literal, ...\) == literal`"),
        (rows[3], r"key 'test_list': asserts of add_all and add: expected all of one function"),
        (rows[4], r"key 'test_setup_code': code that runs before the tests"),
        (rows[5], r"key 'test_list': answer\.tests is missing or empty"),
    ):
        path = hub_copy(tmp_path / "bad", {"full": {"train": [row]}})
        with pytest.raises(DataError, match=message):
            rows_of("mbpp", path, "data.rows.bad_rows=refuse")


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def packed(thing: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(thing))).decode()


def test_livecodebench(tmp_path: Path) -> None:
    def row(**fields: Any) -> dict[str, Any]:
        case = {"input": "1 2\n", "output": "3\n", "testtype": "stdin"}
        return {
            "question_title": "Sum", "question_content": "Add.", "platform": "atcoder", "question_id": "abc_a",
            "contest_id": "abc", "contest_date": "2024-09-01T00:00:00", "starter_code": "", "difficulty": "easy",
            "public_test_cases": json.dumps([case]), "private_test_cases": "", "metadata": "{}", **fields,
        }  # fmt: skip

    hidden = json.dumps([{"input": "4 5\n", "output": "9\n", "testtype": "stdin"}])
    call = json.dumps([{"input": '[1, 2]\n"a"', "output": "true", "testtype": "functional"}])
    rows = [
        row(private_test_cases=packed(hidden)),
        row(private_test_cases=hidden),
        row(public_test_cases=call, starter_code="class Solution: ...", metadata='{"func_name": "fits"}'),
    ]
    source = SourceRows(jsonl(tmp_path / "test.jsonl", rows), name="lcb", reader="livecodebench")
    first, second, third = source
    assert first.id == "lcb/abc_a"
    assert first == second
    assert first.question.startswith("Add.\n\nWrite a program")
    assert [test["output"] for test in first.answer["tests"]] == ["3\n", "9\n"]
    assert third.answer == {
        "kind": "code",
        "function": "fits",
        "tests": [{"input": '[[1, 2], "a"]', "output": "true"}],
    }
    assert "Begin with:\n```\nclass Solution: ...\n```" in third.question

    bad = [row(private_test_cases=packed(Hostile(tmp_path / "made"))), row(private_test_cases="no base 64!")]
    for broken in bad:
        with pytest.raises(DataError, match=r"line 1: key 'private_test_cases' is .*, expected packed tests"):
            list(SourceRows(jsonl(tmp_path / "bad.jsonl", [broken]), reader="livecodebench"))
    assert not (tmp_path / "made").exists()


def test_harmless_prompts(tmp_path: Path) -> None:
    talk = "\n\nHuman: How do I\n\nbreak in?\n\nAssistant: You don't.\n\nHuman: Why?\n\nAssistant: It's theirs."
    rows = [
        {"chosen": talk, "rejected": talk + " No."},
        {"chosen": talk + " Yes.", "rejected": talk},
        {"chosen": "Hello.", "rejected": "Hello!"},
    ]
    data = data_of("harmless_prompts", jsonl(tmp_path / "train.jsonl.gz", rows))
    assert list(data.rows) == [Row("harmless_prompts/0", "How do I\n\nbreak in?", {}, "harmless")]
    assert data.rows.left_out == {"asked before": 1, "unusable": 1}


def ultrafeedback_row(prompt: str, good: str, bad: str, scores: tuple[float, float]) -> dict[str, Any]:
    asked = {"content": prompt, "role": "user"}
    return {
        "prompt": prompt, "prompt_id": f"id-{prompt}",
        "chosen": [asked, {"content": good, "role": "assistant"}],
        "rejected": [asked, {"content": bad, "role": "assistant"}],
        "messages": [asked, {"content": good, "role": "assistant"}],
        "score_chosen": scores[0], "score_rejected": scores[1],
    }  # fmt: skip


def test_helpful_prompts(tmp_path: Path) -> None:
    rows = [
        ultrafeedback_row("Name a river.", "The Rhine.", "Yes!", (8.0, 3.0)),
        ultrafeedback_row("说一条河。", "长江。", "好。", (8.0, 3.0)),
    ]
    path = hub_copy(tmp_path / "ultra", {"default": {"train_prefs": rows, "test_prefs": rows[:1]}})
    assert rows_of("helpful_prompts", path) == [
        Row("helpful_prompts/id-Name a river.", "Name a river.", {}, "helpful", "en"),
        Row("helpful_prompts/id-说一条河。", "说一条河。", {}, "helpful", "zh"),
    ]


def test_helpful_pairs(tmp_path: Path) -> None:
    rows = [
        ultrafeedback_row("Name a river.", "The Rhine.", "Yes!", (8.0, 3.0)),
        ultrafeedback_row("Name a lake.", "Lake Como.", "Como.", (8.0, 7.5)),
        ultrafeedback_row("Name a hill.", "No.", "No.", (8.0, 3.0)),
    ]
    path = hub_copy(tmp_path / "ultra", {"default": {"train_prefs": rows, "test_prefs": rows}})
    [pair] = [*(data := data_of("helpful_pairs", path)).train, *data.heldout]
    assert pair == Preference("helpful_pairs/0", "Name a river.", "The Rhine.", "Yes!")


def test_safety_labels(tmp_path: Path) -> None:
    row = {
        "prompt": "How do I break in?", "response_0": "Like this.", "response_1": "You don't.",
        "prompt_source": "x", "response_0_source": "a", "response_1_source": "b",
        "is_response_0_safe": False, "is_response_1_safe": True,
        "response_0_harm_category": {"Theft": True}, "response_1_harm_category": {"Theft": False},
        "response_0_severity_level": 2, "response_1_severity_level": 0, "better_response_id": 1, "safer_response_id": 1,
        "response_0_sha256": "0", "response_1_sha256": "1",
    }  # fmt: skip
    data = data_of("safety_labels", hub_copy(tmp_path / "safe", {"default": {"train": [row]}}))
    assert [*data.train, *data.heldout] == [
        SafetyLabel("safety_labels/0/0", row["prompt"], "Like this.", False),
        SafetyLabel("safety_labels/0/1", row["prompt"], "You don't.", True),
    ]
