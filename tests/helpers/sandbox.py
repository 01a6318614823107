"""A sandbox that runs nothing: what a program gives on each input stands in the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_r1.sandbox.base import GoOn, Limits, Program, Status, TestRun

DEFAULT = Limits()
Behaviour = Callable[[str], TestRun | str]


def ended(status: Status, output: str = "", detail: str = "") -> TestRun:
    """A test that ended so."""
    return TestRun(status, output.encode(), 0.01, detail)


class ScriptedSandbox:
    """Program ``source`` gives ``behaviours[source.strip()](input)``: a run, or the text of one that was well.

    A program without a behaviour does not compile.
    """

    name = "scripted"

    def __init__(self, **behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.asked: list[tuple[Program, list[str], Limits]] = []
        """Program, the inputs that it was run on, and limits of every call."""
        self.closed = False

    def run(
        self, program: Program, inputs: Sequence[str], limits: Limits = DEFAULT, *, go_on: GoOn | None = None
    ) -> list[TestRun]:
        """See :class:`lightning_r1.sandbox.base.Sandbox`."""
        runs: list[TestRun] = []
        self.asked.append((program, [], limits))
        behaviour = self.behaviours.get(program.source.strip())
        if behaviour is None:
            return [ended(Status.COMPILE_ERROR, detail="line 1\n  SyntaxError")]
        for place, given in enumerate(inputs):
            self.asked[-1][1].append(given)
            run = behaviour(given)
            runs.append(ended(Status.OK, run) if isinstance(run, str) else run)
            if runs[-1].status is Status.BROKEN or (go_on is not None and not go_on(place, runs[-1])):
                break
        return runs

    def close(self) -> None:
        """Remembers it."""
        self.closed = True
