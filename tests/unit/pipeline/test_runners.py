"""Runners: a node's command is the one that a person would type, here or in a process of its own."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers.strike import strike
from lightning_r1.config.errors import ConfigError
from lightning_r1.parallel.interruption import Interrupted, interruption
from lightning_r1.pipeline import runners
from lightning_r1.pipeline.runners import RECIPES, RUNNERS, Command, InProcess, Subprocess


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    """An open file, locked."""
    with (tmp_path / ".node.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``recipe(source)`` is a command whose recipe is that source."""

    def write(source: str, *overrides: str) -> Command:
        (tmp_path / "verb.py").write_text(source)
        return Command("verb", overrides)

    monkeypatch.setattr(runners, "RECIPES", tmp_path)
    return write


def test_a_command_is_what_a_person_would_type() -> None:
    overrides = ("phase=r1_zero", "+new={_target_: a.b}", "name=two words", "data.text='it''s $HOME'", "~data.corpus")
    typed = Command("train", overrides).shell()
    assert shlex.split(typed) == ["python", "recipes/train.py", *overrides]
    assert typed.startswith("python recipes/train.py phase=r1_zero '+new={_target_: a.b}'")


@pytest.mark.parametrize("verb", ["train", "sample", "teach", "evaluate"])
def test_every_verb_has_its_recipe_and_its_function(verb: str) -> None:
    assert (RECIPES / f"{verb}.py").is_file()
    assert callable(getattr(import_module(f"lightning_r1.{verb}"), verb))


def test_runners_have_names() -> None:
    assert {"process": InProcess, "subprocess": Subprocess} == RUNNERS


@pytest.mark.parametrize("verb", ["train", "sample"])
def test_in_process_gives_the_verb_its_config(verb: str, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(import_module(f"lightning_r1.{verb}"), verb, given.append)
    monkeypatch.setattr(runners, "compose_config", lambda name, overrides: {"verb": name, "overrides": overrides})
    InProcess()("node", Command(verb, ("a=1", "b=2")), lock)
    assert given == [{"verb": verb, "overrides": ("a=1", "b=2")}]


def test_in_process_an_error_is_the_verbs_own(lock: int) -> None:
    with pytest.raises(ConfigError, match="experiment=nope: there is no such choice"):
        InProcess()("node", Command("train", ("experiment=nope",)), lock)


def test_a_process_gets_the_overrides_as_they_are(recipe: Any, lock: int, tmp_path: Path) -> None:
    overrides = ("name=two words", "data={_target_: a.b}", "x=$HOME", "y='quoted'")
    said = tmp_path / "said"
    source = f"import sys; open({str(said)!r}, 'w').write('|'.join([sys.executable, *sys.argv[1:]]))"
    Subprocess()("node", recipe(source, *overrides), lock)
    assert said.read_text().split("|") == [sys.executable, *overrides]


def test_what_a_process_prints_has_the_nodes_name_in_front(
    recipe: Any, lock: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        "import sys\nprint('reward [bold]0.50[/]', flush=True)\nprint('x' * 300, flush=True)\n"
        "print('a warning', file=sys.stderr, flush=True)\nsys.stdout.buffer.write(b'\\xff\\n')"
    )
    Subprocess()("r1_zero", recipe(source), lock)
    name = f"{'r1_zero':>20} │ "
    lines = ["reward [bold]0.50[/]", "x" * 300, "a warning", "\ufffd"]
    assert capsys.readouterr().out.splitlines() == [name + line for line in lines]


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1)])
def test_a_process_that_fails_names_its_node_and_the_command(
    end: str, status: int, recipe: Any, lock: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        Subprocess()("r1_zero", recipe(f"import os, sys\nprint('why', flush=True)\n{end}", "name=two words"), lock)
    message = str(caught.value)
    assert f"node r1_zero ended with status {status};" in message
    assert message.endswith("By hand: python recipes/verb.py 'name=two words'")
    assert "│ why" in capsys.readouterr().out


def test_a_process_that_was_interrupted_is_no_failure(recipe: Any, lock: int) -> None:
    with pytest.raises(Interrupted, match="node r1_zero was interrupted"):
        Subprocess()("r1_zero", recipe("raise SystemExit(75)"), lock)


def test_who_asks_the_pipeline_to_leave_asks_its_nodes(
    recipe: Any, lock: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        "import os, signal, sys\n"
        "def leave(*_):\n    left = b'x' * 200_000 + b'saved\\n'\n"  # more than a pipe holds
        "    while left:\n        left = left[os.write(1, left):]\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, leave)\nprint('begun', flush=True)\nsignal.pause()"
    )
    strike(monkeypatch, runners.console, "print")  # when the first line comes
    with interruption.listening(), pytest.raises(Interrupted, match="SIGUSR1"):
        Subprocess()("r1_zero", recipe(source), lock)
    assert capsys.readouterr().out.endswith("xsaved\n")
    assert not interruption.children


def is_locked(file: Path) -> bool:
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_lock_is_held_until_the_nodes_process_ends(recipe: Any, tmp_path: Path) -> None:
    """Whatever becomes of the pipeline: the node still runs, and a second one would write into its folder."""
    file = tmp_path / ".held.lock"
    begins, goes_on = tmp_path / "begins", tmp_path / "goes_on"
    for pipe in (begins, goes_on):
        os.mkfifo(pipe)
    # says that it runs, and stays until the other end of the second pipe is closed
    source = f"open({str(begins)!r}, 'w').write('here')\nopen({str(goes_on)!r}).read()"
    command, stays = recipe(source), os.open(goes_on, os.O_RDWR)
    pipeline = os.fork()
    if pipeline == 0:
        handle = file.open("a")
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            Subprocess()("node", command, handle.fileno())
        finally:
            os._exit(1)
    try:
        assert begins.read_text() == "here"
        os.kill(pipeline, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pipeline, 0)[1])
        assert is_locked(file)
    finally:
        os.close(stays)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # as soon as the process has ended
