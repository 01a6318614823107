"""The accuracy reward of programs: the tests they pass (R1 paper, section 2.2: predefined test cases).

The program is the last fenced block after the thinking (:mod:`lightning_r1.text.code`). It runs in a sandbox, which
gets its inputs and nothing else; what it gives is compared here, on plain data
(:mod:`lightning_r1.text.program_output`), so that there is nothing in reach of the program that says "right".

================================================  =========================================================
what happened                                     score
================================================  =========================================================
every test passed                                 1
a test failed: other output, an error, a limit    0, or with ``mode=fraction`` the share of tests passed
it does not compile                               0
no program after the thinking                     0, ``wrong_format``
the sandbox itself failed                         none, ``crash``
the gold has no usable tests                      none, ``unscorable``
================================================  =========================================================
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lightning_r1.sandbox.base import Limits, Program, Sandbox, Status, TestRun
from lightning_r1.sandbox.open import open_sandbox
from lightning_r1.text.code import find_program
from lightning_r1.text.golds import PROGRAM_LANGUAGES, check_gold
from lightning_r1.text.program_output import same_output, same_value
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class CodeTests:
    """Runs the program of a completion on the tests of its prompt's gold.

    Args:
        tags: of the template.
        mode: ``all``: 1 if every test passes, and the first that fails ends it. ``fraction``: the share of tests
            passed; one that runs into its time limit ends it, and those behind it count as failed. ``compile``: 1
            for a program that compiles, which is not run. ``format``: 1 for a program, whatever it is.
        languages: that a program may be in; a block that names none is taken to be in the first.
        max_tests: run at most so many, the same ones for every completion of a prompt: a sample that belongs to the
            prompt's id. The largest would time best, but are often all of one kind. None runs all.
        backend: of :func:`.open_sandbox`.
        url: of a remote sandbox.
        allow_unsafe: let ``backend=unsafe_subprocess`` run programs that nothing holds back.
        time_limit_s: of one test, in seconds, where the gold has no ``time_limit_s``.
        time_factor: the gold's is multiplied by this: contests mean C++ on an idle machine.
        max_time_limit_s: no test gets more, whatever the gold says.
        max_seconds: of all tests of one program together; those behind it count as failed.
        memory_limit_mib: address space of a program, in MiB; more if the gold says so, but never less, since an
            interpreter reserves more than it uses.
        max_memory_limit_mib: no program gets more, whatever the gold says.
        at_once: programs that run at a time; None is one a core that this process may use.

    Raises:
        ValueError: for options that contradict each other.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        mode: Literal["all", "fraction", "compile", "format"] = "all",
        languages: Sequence[str] = ("python",),
        max_tests: int | None = None,
        backend: str = "auto",
        url: str | None = None,
        allow_unsafe: bool = False,
        time_limit_s: float = 4.0,
        time_factor: float = 2.0,
        max_time_limit_s: float = 10.0,
        max_seconds: float = 60.0,
        memory_limit_mib: int = 512,
        max_memory_limit_mib: int = 1024,
        at_once: int | None = None,
    ) -> None:
        if mode not in ("all", "fraction", "compile", "format"):
            raise ValueError(f"mode={mode!r}: expected all, fraction, compile or format")
        unknown = [language for language in languages if language not in PROGRAM_LANGUAGES]
        if unknown or not languages:
            raise ValueError(f"languages={list(languages)}: expected some of {', '.join(PROGRAM_LANGUAGES)}")
        for name, value in (("max_tests", max_tests), ("at_once", at_once)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected >= 1, or null")
        for least, most, name in (
            (time_limit_s, max_time_limit_s, "max_time_limit_s"),
            (max_time_limit_s, max_seconds, "max_seconds"),
            (memory_limit_mib, max_memory_limit_mib, "max_memory_limit_mib"),
        ):
            if not 0 < least <= most:
                raise ValueError(f"{name}={most}: expected at least {least}, which lies within it, and both above 0")
        if not time_factor > 0:
            raise ValueError(f"time_factor={time_factor}: expected > 0")
        self.tags, self.mode, self.languages, self.max_tests = tags, mode, tuple(languages), max_tests
        self.time_limit_s, self.time_factor, self.max_time_limit_s = time_limit_s, time_factor, max_time_limit_s
        self.max_seconds = max_seconds
        self.memory_limit_mib, self.max_memory_limit_mib = memory_limit_mib, max_memory_limit_mib
        self.at_once = at_once or len(os.sched_getaffinity(0))
        self._how: dict[str, Any] = {
            "backend": backend, "languages": self.languages, "url": url, "allow_unsafe": allow_unsafe,
            "at_once": self.at_once,
        }  # fmt: skip
        self._sandbox: Sandbox | None = None
        self._opening = threading.Lock()

    def is_for(self, prompt: Prompt) -> bool:
        """Prompts whose gold is tests."""
        return prompt.answer.get("kind") == "code"

    def start(self) -> None:
        """Open the sandbox, which proves that it holds.

        Raises:
            SandboxError: if none does; says why not.
        """
        with self._opening:
            if self._sandbox is None and self.mode != "format":
                self._sandbox = open_sandbox(**self._how)

    def close(self) -> None:
        """Give the sandbox back."""
        with self._opening:
            if close := getattr(self._sandbox, "close", None):
                close()
            self._sandbox = None

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """See the table above. The detail says which test failed and how, never what it expected."""
        gold = prompt.answer
        try:
            check_gold(gold)
            languages = self._languages(gold)
        except ValueError as error:
            return RewardScore(math.nan, Outcome.UNSCORABLE, str(error))
        block = find_program(completion.text, self.tags, languages)
        if block is None:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "no program after the thinking")
        if self.mode == "format":
            return RewardScore(1.0, Outcome.OK, f"a program in {block.language}")
        self.start()
        assert self._sandbox is not None
        program = Program(block.source, "cpp" if block.language == "cpp" else "python", gold.get("function"))
        if self.mode == "compile":
            return _compiles(self._sandbox, program, self.limits(gold))
        places = chosen_tests(len(gold["tests"]), self.max_tests, prompt.id)
        grading = _Grading(gold, places, all_or_nothing=self.mode == "all", seconds=self.max_seconds)
        inputs = [gold["tests"][place]["input"] for place in places]
        return grading.score(self._sandbox.run(program, inputs, self.limits(gold), go_on=grading.go_on))

    def limits(self, gold: Mapping[str, Any]) -> Limits:
        """What a program may use on one test of a gold."""
        said, memory = gold.get("time_limit_s"), gold.get("memory_limit_mb") or 0
        seconds = min(said * self.time_factor if said else self.time_limit_s, self.max_time_limit_s)
        longest = max(len(test["output"].encode(errors="surrogatepass")) for test in gold["tests"])
        return Limits(
            wall_s=seconds,
            cpu_s=seconds + 1,  # the wall ends it first, unless it has several threads
            memory_mib=int(min(max(memory, self.memory_limit_mib), self.max_memory_limit_mib)),
            output_bytes=max(Limits().output_bytes, 2 * longest),
        )

    def _languages(self, gold: Mapping[str, Any]) -> tuple[str, ...]:
        asked = "python" if gold.get("function") else gold.get("language")
        if asked is None:
            return self.languages
        if asked not in self.languages:
            raise ValueError(f"the answer is a program in {asked}, but languages={list(self.languages)}")
        return (asked,)


def chosen_tests(count: int, most: int | None, id: str) -> list[int]:
    """Places of the tests to run, in order.

    >>> chosen_tests(3, None, "a"), len(chosen_tests(100, 20, "a")), chosen_tests(2, 20, "a")
    ([0, 1, 2], 20, [0, 1])
    """
    if most is None or count <= most:
        return list(range(count))
    return sorted(random.Random(f"tests/{id}").sample(range(count), most))


class _Grading:
    """The tests of one program, compared as they come in."""

    def __init__(self, gold: Mapping[str, Any], places: Sequence[int], *, all_or_nothing: bool, seconds: float) -> None:
        self.gold, self.places, self.all_or_nothing = gold, places, all_or_nothing
        self.until = time.monotonic() + seconds
        self.faults: dict[int, str] = {}  # "" for a test that passed
        self.ended = ""

    def go_on(self, number: int, run: TestRun) -> bool:
        """Whether there is anything left to learn from further tests."""
        fault = self._fault(number, run)
        if time.monotonic() > self.until:
            self.ended = "time limit of all tests together"
        elif fault and (self.all_or_nothing or run.status is Status.TIME_LIMIT):
            self.ended = fault
        return not self.ended

    def score(self, runs: Sequence[TestRun]) -> RewardScore:
        """The reward, from all runs that were made."""
        for run in runs:
            if run.status is Status.BROKEN:
                return RewardScore(math.nan, Outcome.CRASH, f"sandbox: {run.detail}")
            if run.status is Status.COMPILE_ERROR:
                return RewardScore(0.0, Outcome.OK, _with("does not compile", run.detail))
        total = len(self.places)
        if len(runs) > total or (len(runs) < total and not self.ended):
            return RewardScore(math.nan, Outcome.CRASH, f"sandbox: {len(runs)} runs of {total} tests")
        faults = [self._fault(number, run) for number, run in enumerate(runs)]
        passed = faults.count("")
        first = next((f"test {self.places[number] + 1}: {fault}" for number, fault in enumerate(faults) if fault), "")
        detail = _with(f"{passed} of {total} tests", first or (self.ended if passed < total else ""))
        return RewardScore(float(passed == total) if self.all_or_nothing else passed / total, Outcome.OK, detail)

    def _fault(self, number: int, run: TestRun) -> str:
        if number not in self.faults:
            self.faults[number] = self._compared(self.gold["tests"][self.places[number]]["output"], run)
        return self.faults[number]

    def _compared(self, wanted: str, run: TestRun) -> str:
        if run.status is not Status.OK:
            return _with(run.status.value, run.detail)
        function = self.gold.get("function") is not None
        same = (same_value if function else same_output)(run.output, wanted, self.gold.get("tolerance"))
        return "" if same else "another value" if function else "another output"


def _compiles(sandbox: Sandbox, program: Program, limits: Limits) -> RewardScore:
    for run in sandbox.run(program, [], limits):
        if run.status is Status.COMPILE_ERROR:
            return RewardScore(0.0, Outcome.OK, _with("does not compile", run.detail))
        return RewardScore(math.nan, Outcome.CRASH, f"sandbox: {run.detail}")
    return RewardScore(1.0, Outcome.OK, "compiles")


def _with(what: str, more: str) -> str:
    more = " ".join(more.split())
    return f"{what} ({more[:200]})" if more else what
