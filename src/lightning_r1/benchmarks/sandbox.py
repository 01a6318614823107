"""Programs with tests: our sandboxes beside a plain subprocess a test, which protects nothing.

The same programs, all of them right, so that no test is spared; each system gets as many threads; they take turns,
a slice of the programs each, because a shared machine drifts. Ours is the whole reward (finding the program, running,
comparing). Theirs is what rewards for code commonly do: start an interpreter for each test, compare what it prints;
it is given the flags with which Python starts fastest.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from rich.table import Table

from lightning_r1.callbacks.console import console
from lightning_r1.rewards.base import Item
from lightning_r1.rewards.code import CodeTests
from lightning_r1.rewards.threads import ThreadScorer
from lightning_r1.sandbox.base import SandboxError
from lightning_r1.text.code import find_program
from lightning_r1.text.program_output import same_output
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Prompt

THEIRS = "subprocess"
"""One a test."""

# a program, and what it computes: a little arithmetic, a little text, some data structures
_PROGRAMS: tuple[tuple[str, Callable[[int], str]], ...] = (
    ("n = int(input())\nprint(n * (n + 1) // 2)", lambda n: str(n * (n + 1) // 2)),
    ("n = int(input())\nprint(*sorted(str(n)))", lambda n: " ".join(sorted(str(n)))),
    (
        "import sys\nfrom collections import Counter\ntext = sys.stdin.read().strip() * 50\n"
        "for letter, count in sorted(Counter(text).items()):\n    print(letter, count)",
        lambda n: "\n".join(f"{digit} {50 * str(n).count(digit)}" for digit in sorted(set(str(n)))),
    ),
    (
        "def main():\n    n = int(input()) % 5000\n    total = 0\n    for i in range(n):\n        total += i * i\n"
        "    print(total)\n\nmain()",
        lambda n: str(sum(i * i for i in range(n % 5000))),
    ),
)


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/sandbox.yaml``, resolved.

    Returns:
        Of each system, medians over turns of ``programs_per_s`` and ``tests_per_s``; and the reasons of the
        backends that do not work here.
    """
    work = {name: config[name] for name in ("programs", "tests", "rounds")}
    threads = config["at_once"] or len(os.sched_getaffinity(0))
    systems, rewards, missing = _open(config["backends"], threads)
    turns: dict[str, list[float]] = {name: [] for name in systems}
    items = [_item(number, work["tests"]) for number in range(work["programs"])]
    try:
        for number in range(work["rounds"]):
            for name, grade in systems.items():
                turns[name].append(_programs_per_s(name, grade, items[number :: work["rounds"]]))
            console.print(f"turn {number + 1}/{work['rounds']}  " + _rates({name: turns[name][-1] for name in systems}))
    finally:
        for reward in rewards:
            reward.close()
    medians = {
        name: {"programs_per_s": statistics.median(rates), "tests_per_s": statistics.median(rates) * work["tests"]}
        for name, rates in turns.items()
    }
    _tell(work, threads, medians)
    return {"work": {**work, "at_once": threads}, "medians": medians, "missing": missing}


Grade = Callable[[Sequence[Item]], list[float]]


def _open(backends: Sequence[str], threads: int) -> tuple[dict[str, Grade], list[CodeTests], dict[str, str]]:
    """What can be measured here, and why the rest cannot."""
    systems: dict[str, Grade] = {}
    rewards, missing = [], {}
    for backend in backends:
        reward = CodeTests(Tags(), backend=backend, at_once=threads, allow_unsafe=backend == "unsafe_subprocess")
        try:
            reward.start()
        except SandboxError as error:
            missing[backend] = str(error)
            console.print(f"{backend} does not work here: {error}", soft_wrap=True)
            continue
        rewards.append(reward)
        systems[backend] = partial(ours, reward)
    systems[THEIRS] = partial(theirs, threads)
    return systems, rewards, missing


def ours(reward: CodeTests, items: Sequence[Item]) -> list[float]:
    """The reward of each program, as in training."""
    scorer = ThreadScorer()
    try:
        return [score.value for score in scorer.score("code", reward, items)]
    finally:
        scorer.close()


def theirs(threads: int, items: Sequence[Item]) -> list[float]:
    """1 for each program that passes its tests, each in an interpreter of its own."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_passes_all, items))


def _passes_all(item: Item) -> float:
    prompt, completion = item
    block = find_program(completion.text, Tags())
    assert block is not None
    for test in prompt.answer["tests"]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", block.source],
            input=test["input"].encode(), capture_output=True, timeout=10, check=False,
        )  # fmt: skip
        if done.returncode or not same_output(done.stdout, test["output"]):
            return 0.0
    return 1.0


def _item(number: int, tests: int) -> Item:
    source, solve = _PROGRAMS[number % len(_PROGRAMS)]
    # a comment tells each program from the others: nothing can be remembered
    text = f"<think>Let me see.</think>\n```python\n# {number}\n{source}\n```"
    given = [7919 * (number + 1) * (place + 1) for place in range(tests)]
    gold = {"kind": "code", "tests": [{"input": f"{n}\n", "output": solve(n)} for n in given]}
    return Prompt(f"sandbox/{number}", "", "", (1,), gold), Completion((), (), "stop", text)


def _programs_per_s(name: str, grade: Grade, items: Sequence[Item]) -> float:
    started = time.perf_counter()
    values = grade(items)
    seconds = time.perf_counter() - started
    if values != [1.0] * len(items):
        raise RuntimeError(f"{name}: {sum(value != 1 for value in values)} of {len(items)} right programs failed")
    return len(items) / seconds


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:.1f} programs/s" for name, rate in rates.items())


def _tell(work: Mapping[str, int], threads: int, medians: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(
        title=f"{work['programs']} programs x {work['tests']} tests, {threads} at a time, median of "
        f"{work['rounds']} turns",
        title_justify="left",
    )
    for column in ("", "programs/s", "tests/s", "ms a test and core", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, numbers in medians.items():
        table.add_row(
            name,
            f"{numbers['programs_per_s']:.1f}",
            f"{numbers['tests_per_s']:,.0f}",
            f"{1000 * threads / numbers['tests_per_s']:.2f}",
            f"{numbers['tests_per_s'] / medians[THEIRS]['tests_per_s']:.1f}x",
        )
    console.print(table)
