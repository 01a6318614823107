"""The reward of programs: what each ending of a test is worth, what goes into the sandbox, and what never does."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from helpers.sandbox import ScriptedSandbox, ended
from lightning_r1.rewards import code
from lightning_r1.rewards.base import at_once
from lightning_r1.rewards.code import CodeTests, chosen_tests
from lightning_r1.rewards.threads import ThreadScorer
from lightning_r1.sandbox.base import Limits, Status, TestRun
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

# doubles its input
TESTS = [("1", "2"), ("2", "4\n"), ("3", "6"), ("4", "8")]
SECRETS = ("2", "4", "6", "8")


def prompt(tests: list[tuple[str, str]] = TESTS, id: str = "a", **gold: Any) -> Prompt:
    answer = {"kind": "code", "tests": [{"input": given, "output": wanted} for given, wanted in tests], **gold}
    return Prompt(id, "double", "double", (1,), answer)


def says(source: str, language: str = "python") -> Completion:
    return Completion((), (), "stop", f"<think>so</think>```{language}\n{source}\n```")


def breaks(status: Status, on: str) -> Any:
    """Right, but for one input."""
    return lambda given: ended(status, detail="why") if given == on else double(given)


def double(given: str) -> str:
    return f"{2 * int(given)}\n"


BEHAVIOURS: dict[str, Any] = {
    "right": double,
    "silent": lambda given: "",
    "samples": lambda given: {"1": "2", "2": "4"}.get(given, "0"),  # what stands in the question
    "last_wrong": lambda given: double(given) if given != "4" else "9",
    "raises": breaks(Status.ERROR, "2"),
    "late": breaks(Status.TIME_LIMIT, "2"),
    "fat": breaks(Status.MEMORY_LIMIT, "2"),
    "loud": breaks(Status.OUTPUT_LIMIT, "2"),
    "broken": breaks(Status.BROKEN, "2"),
    # what it printed was right, and it failed all the same
    "right_and_raises": lambda given: ended(Status.ERROR, double(given)),
    "right_and_late": lambda given: ended(Status.TIME_LIMIT, double(given)),
}


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> ScriptedSandbox:
    sandbox = ScriptedSandbox(**BEHAVIOURS)
    monkeypatch.setattr(code, "open_sandbox", lambda **how: sandbox)
    return sandbox


def score(source: str, asked: Prompt | None = None, **options: Any) -> RewardScore:
    return CodeTests(Tags(), **options)(asked or prompt(), says(source))


@pytest.mark.parametrize(
    ("source", "everything", "fraction", "runs", "detail"),
    [
        ("right", 1, 1, 4, "4 of 4 tests"),
        ("silent", 0, 0, 1, "0 of 4 tests (test 1: another output)"),
        ("samples", 0, 0.5, 3, "2 of 4 tests (test 3: another output)"),
        ("last_wrong", 0, 0.75, 4, "3 of 4 tests (test 4: another output)"),
        ("raises", 0, 0.75, 2, "1 of 4 tests (test 2: error (why))"),
        ("late", 0, 0.25, 2, "1 of 4 tests (test 2: time limit (why))"),
        ("fat", 0, 0.75, 2, "1 of 4 tests (test 2: memory limit (why))"),
        ("loud", 0, 0.75, 2, "1 of 4 tests (test 2: output limit (why))"),
        ("right_and_raises", 0, 0, 1, "0 of 4 tests (test 1: error)"),
        ("right_and_late", 0, 0, 1, "0 of 4 tests (test 1: time limit)"),
        ("def f(:", 0, 0, 0, "does not compile (line 1 SyntaxError)"),
    ],
)
def test_what_each_ending_is_worth(
    sandbox: ScriptedSandbox, source: str, everything: float, fraction: float, runs: int, detail: str
) -> None:
    assert score(source) == RewardScore(everything, Outcome.OK, detail)
    assert len(sandbox.asked[0][1]) == runs  # the first that fails ends it
    partly = score(source, mode="fraction")
    assert (partly.value, partly.outcome) == (fraction, Outcome.OK)
    assert len(sandbox.asked[1][1]) == (2 if source == "late" else 1 if "and_late" in source else min(4 * runs, 4))


def test_the_detail_never_says_what_was_expected(sandbox: ScriptedSandbox) -> None:
    tests = [("1", "SECRET"), ("2", "SECRET")]
    for source in BEHAVIOURS:
        for mode in ("all", "fraction"):
            assert "SECRET" not in score(source, prompt(tests), mode=mode).detail


def test_the_sandbox_gets_inputs_and_nothing_else(sandbox: ScriptedSandbox) -> None:
    score("right", prompt([("7", "14"), ("8", "16")], function=None))
    ((program, inputs, _),) = sandbox.asked
    assert inputs == ["7", "8"]
    assert "14" not in repr(program)
    assert (program.source.strip(), program.language, program.function) == ("right", "python", None)


@pytest.mark.parametrize("mode", ["all", "fraction"])
def test_a_sandbox_that_fails_is_never_a_zero(sandbox: ScriptedSandbox, mode: str) -> None:
    broken = score("broken", mode=mode)
    assert math.isnan(broken.value)
    assert (broken.outcome, broken.detail) == (Outcome.CRASH, "sandbox: why")
    short = lambda program, inputs, limits, go_on: [ended(Status.OK, "2")]  # noqa: E731
    sandbox.run = short  # type: ignore[assignment,method-assign]
    assert score("right", mode=mode).outcome is Outcome.CRASH  # fewer runs than tests, and nobody ended it
    sandbox.run = lambda *a, **k: [ended(Status.OK, "2")] * 5  # type: ignore[assignment,method-assign]
    assert score("right", mode=mode).outcome is Outcome.CRASH


def test_what_the_sandbox_raises_is_a_crash(sandbox: ScriptedSandbox) -> None:
    def run(*arguments: Any, **how: Any) -> list[TestRun]:
        raise OSError("no more processes")

    sandbox.run = run  # type: ignore[method-assign]
    (crashed,) = ThreadScorer().score("code", CodeTests(Tags()), [(prompt(), says("right"))])
    assert (crashed.outcome, crashed.detail) == (Outcome.CRASH, "OSError: no more processes")


def test_no_program_is_the_wrong_format(sandbox: ScriptedSandbox) -> None:
    reward = CodeTests(Tags())
    for text in ("", "<think>so</think>right", "<think>```python\nright\n```</think>", "```python\nright\n```"):
        assert reward(prompt(), Completion((), (), "stop", text)).outcome is Outcome.WRONG_FORMAT
        assert reward(prompt(), Completion((), (), "stop", text)).value == 0
    assert sandbox.asked == []


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({"kind": "code", "tests": []}, "answer.tests is missing"),
        ({"kind": "code", "tests": [{"input": "1"}]}, "answer.tests[0]"),
        ({"kind": "code", "tests": [{"input": "[1]", "output": "NaN"}], "function": "f"}, "answer.tests[0].output"),
        ({"kind": "code", "tests": [{"input": "1", "output": "2"}], "language": "cpp"}, "a program in cpp, but"),
        ({}, "answer.kind"),
    ],
)
def test_a_bad_gold_is_nobodys_fault(sandbox: ScriptedSandbox, gold: dict[str, Any], message: str) -> None:
    bad = CodeTests(Tags())(Prompt("a", "q", "q", (1,), gold), says("right"))
    assert math.isnan(bad.value)
    assert bad.outcome is Outcome.UNSCORABLE
    assert message in bad.detail


def test_functions(sandbox: ScriptedSandbox) -> None:
    sandbox.behaviours |= {
        "returns": lambda given: "[1.0, [2]]" if given == "[1]" else "{}",
        "true": lambda given: "true",
        "nan": lambda given: "NaN",
        "deep": lambda given: "[" * 100_000,
        "long": lambda given: "1" * 100_000,
        "twice": lambda given: '{"a": 1, "a": 2}',
        "prefix": lambda given: "[1]",
    }
    asked = prompt([("[1]", "[1, [2]]"), ("[2]", "{}")], function="f")
    assert score("returns", asked).value == 1
    assert sandbox.asked[-1][0].function == "f"
    for source in ("true", "nan", "deep", "long", "twice", "prefix"):
        assert score(source, asked) == RewardScore(0.0, Outcome.OK, "0 of 2 tests (test 1: another value)")
    assert score("true", prompt([("[1]", "1")], function="f")).value == 0


def test_tolerance_is_the_golds(sandbox: ScriptedSandbox) -> None:
    sandbox.behaviours["third"] = lambda given: "0.3333333"
    assert score("third", prompt([("1", "0.33333333333")])).value == 0
    assert score("third", prompt([("1", "0.33333333333")], tolerance=1e-6)).value == 1
    assert score("third", prompt([("[]", "0.33333333333")], function="f", tolerance=1e-6)).value == 1


def test_limits_are_the_golds_up_to_a_maximum() -> None:
    reward = CodeTests(Tags())

    def limits(**gold: Any) -> Limits:
        return reward.limits(prompt(**gold).answer)

    assert limits() == Limits(wall_s=4, cpu_s=5, memory_mib=512)
    assert (limits(time_limit_s=1.5).wall_s, limits(time_limit_s=1.5).cpu_s) == (3, 4)
    assert limits(time_limit_s=100).wall_s == 10
    assert limits(memory_limit_mb=64).memory_mib == 512  # an interpreter needs it
    assert limits(memory_limit_mb=768.5).memory_mib == 768
    assert limits(memory_limit_mb=10**6).memory_mib == 1024
    long = prompt([("1", "x" * (1 << 20))])
    assert reward.limits(long.answer).output_bytes == 2 << 20


def test_the_deadline_is_of_all_tests_together(sandbox: ScriptedSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(given: str) -> str:
        clock[0] += 25
        return double(given)

    sandbox.behaviours["slow"] = slow
    asked = prompt()
    ended_early = RewardScore(0.0, Outcome.OK, "3 of 4 tests (time limit of all tests together)")
    assert score("slow", asked) == ended_early
    clock[0] = 0.0
    assert score("slow", asked, mode="fraction").value == 0.75
    clock[0] = 0.0
    assert score("slow", prompt(TESTS[:3])).value == 1  # the last test came late, and there is none left


def test_a_sample_of_the_tests(sandbox: ScriptedSandbox) -> None:
    tests = [(str(number), str(2 * number)) for number in range(100)]
    for id in ("a", "a", "b"):
        assert score("right", prompt(tests, id=id), max_tests=10) == RewardScore(1.0, Outcome.OK, "10 of 10 tests")
    first, again, other = (inputs for _, inputs, _ in sandbox.asked)
    assert first == again != other
    assert len(set(first)) == 10
    assert list(map(int, first)) == sorted(map(int, first))
    assert chosen_tests(10, 10, "a") == chosen_tests(10, None, "a") == list(range(10))
    # a test keeps its number
    failed = score("silent", prompt(tests, id="a"), max_tests=10)
    assert failed.detail == f"0 of 10 tests (test {int(first[0]) + 1}: another output)"


def test_milder_forms(sandbox: ScriptedSandbox) -> None:
    assert score("silent", mode="compile") == RewardScore(1.0, Outcome.OK, "compiles")
    assert sandbox.asked[-1][1] == []
    assert score("def f(:", mode="compile") == RewardScore(0.0, Outcome.OK, "does not compile (line 1 SyntaxError)")
    calls = len(sandbox.asked)
    assert score("def f(:", mode="format") == RewardScore(1.0, Outcome.OK, "a program in python")
    assert len(sandbox.asked) == calls
    reward = CodeTests(Tags(), mode="format")
    assert reward(prompt(), Completion((), (), "stop", "<think></think>")).outcome is Outcome.WRONG_FORMAT


def test_languages(sandbox: ScriptedSandbox) -> None:
    reward = CodeTests(Tags(), languages=["python", "cpp"])
    for written, language in (("cpp", "cpp"), ("c++", "cpp"), ("python", "python"), ("", "python")):
        assert reward(prompt(), says("right", written)).value == 1
        assert sandbox.asked[-1][0].language == language
    assert reward(prompt(language="cpp"), says("right", "python")).outcome is Outcome.WRONG_FORMAT
    assert reward(prompt(language="cpp"), says("right", "")).value == 1
    assert sandbox.asked[-1][0].language == "cpp"
    asked = prompt([("[1]", "2")], function="f")
    assert reward(asked, says("right", "cpp")).outcome is Outcome.WRONG_FORMAT  # a function is called in python
    assert CodeTests(Tags())(prompt(), says("right", "cpp")).outcome is Outcome.WRONG_FORMAT


def test_it_is_for_prompts_with_tests() -> None:
    reward = CodeTests(Tags())
    assert reward.is_for(prompt())
    assert not reward.is_for(Prompt("a", "q", "q", (1,), {"kind": "number", "value": 1}))
    assert not reward.is_for(Prompt("a", "q", "q", (1,), {}))


def test_it_waits_in_threads() -> None:
    assert at_once(CodeTests(Tags(), at_once=3)) == 3
    assert at_once(CodeTests(Tags())) >= 1


def test_the_sandbox_is_opened_once_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, Any]] = []
    sandbox = ScriptedSandbox(right=double)

    def open_it(**how: Any) -> ScriptedSandbox:
        opened.append(how)
        return sandbox

    monkeypatch.setattr(code, "open_sandbox", open_it)
    reward = CodeTests(Tags(), backend="landlock", languages=["python"], url=None, at_once=2)
    reward.start()
    reward.start()
    assert reward(prompt(), says("right")).value == 1
    how = {"backend": "landlock", "languages": ("python",), "url": None, "allow_unsafe": False, "at_once": 2}
    assert opened == [how]
    reward.close()
    assert sandbox.closed
    reward.close()
    CodeTests(Tags(), mode="format").start()
    assert len(opened) == 1  # nothing runs, nothing is needed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "most"}, "mode='most': expected all, fraction, compile or format"),
        ({"languages": []}, r"languages=\[\]: expected some of python, cpp"),
        ({"languages": ["perl"]}, r"languages=\['perl'\]"),
        ({"max_tests": 0}, "max_tests=0: expected >= 1, or null"),
        ({"at_once": 0}, "at_once=0: expected >= 1, or null"),
        ({"time_limit_s": 20.0}, r"max_time_limit_s=10.0: expected at least 20.0"),
        ({"max_time_limit_s": 90.0}, r"max_seconds=60.0: expected at least 90.0"),
        ({"memory_limit_mib": 2048}, r"max_memory_limit_mib=1024: expected at least 2048"),
        ({"time_factor": 0.0}, r"time_factor=0.0: expected > 0"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodeTests(Tags(), **options)
