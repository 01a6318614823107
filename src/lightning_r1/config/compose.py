"""From a command line to a plain, resolved config; what a user got wrong is one line.

A recipe is a function of a plain config::

    @recipe("train")
    def main(config): ...

Overrides are composed once before Hydra runs the recipe, so that a wrong key, value or choice is told in
one line with the nearest valid name. ``HYDRA_FULL_ERROR=1`` shows the whole stack instead.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lightning_r1.config.build_strategy import with_ranks
from lightning_r1.config.conf_dir import CONF, choices, conf_dir, groups
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.leaving import command, leave
from lightning_r1.config.mistakes import explain, first_of_sweep, one_line, unknown_option
from lightning_r1.config.trouble import explain_trouble
from lightning_r1.config.usage import completion_asked, experiments_for, help_text, options
from lightning_r1.parallel.interruption import MISTAKEN, UNFINISHED, Interrupted, first_of_job, interruption

__all__ = ["CONF", "compose_config", "one_line_errors", "recipe", "resolve", "unfinished", "with_lists"]

# of the rank that requeues the job, before those end that do not know each other yet: the first that ends may end all
_HEAD_START_S = 10.0
_HELP, _COMPLETION = {"-h", "--help"}, {"-sc", "--shell-completion"}
_SWEEP = {"-m", "--multirun"}


def recipe(config_name: str) -> Callable[[Callable[[dict[str, Any]], Any]], Callable[[], None]]:
    """Make a recipe of a function: Hydra composes ``conf/<config_name>.yaml`` with the overrides.

    It ends with a status of :mod:`lightning_r1.parallel.interruption`.

    Args:
        config_name: the primary config.
    """

    def wrap(task: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
        @hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
        def job(config: DictConfig) -> Any:
            with one_line_errors():
                return task(resolve(config))

        @functools.wraps(task)
        def main() -> None:
            with unfinished(), interruption.listening(), one_line_errors():
                sys.argv[1:] = with_lists(sys.argv[1:])
                if _told(sys.argv[1:], config_name, sys.modules[task.__module__].__doc__ or ""):
                    return
                job()

        return main

    return wrap


def _told(arguments: Sequence[str], config_name: str, doc: str) -> bool:
    """Check a command line; whether it only asked for something that is told by now.

    Raises:
        ConfigError: for an option, key, value or choice that does not exist, or one that is missing.
    """
    said = set(arguments)
    if said & _COMPLETION:
        if (asked := completion_asked(arguments)) is not None:
            _say(asked)
            return True
        if offered := experiments_for(os.environ.get("COMP_LINE", ""), config_name):
            _say("\n".join(offered))
        return bool(offered)  # else Hydra answers
    known = options()
    for argument in arguments:
        # argparse would take --exp for --experimental-rerun
        if argument.startswith("-") and argument.partition("=")[0] not in known:
            raise ConfigError(unknown_option(argument, config_name))
    overrides = _overrides(arguments)
    if said & _HELP:
        with _explained(config_name, overrides):
            _say(help_text(doc, config_name, command(config_name), overrides))
        return True
    with _explained(config_name, overrides), conf_dir():
        if said & _SWEEP:
            overrides = first_of_sweep(overrides)
        composed = compose(config_name, overrides=overrides)
    if not said & {"--cfg", "-c", "--info", "-i"}:  # who only looks need not have set everything
        resolve(composed)
    return False


def _overrides(arguments: Sequence[str]) -> list[str]:
    """Of a command line, what is no option, nor the value of one."""
    valued = {"--cfg", "-c", "--package", "-p", "--info", "-i", "--config-name", "-cn", "--config-path", "-cp"}
    valued |= {"--config-dir", "-cd"}
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if not argument.startswith("-") and before not in valued
    ]


def _say(text: str) -> None:
    """To a person, or to a program like ``head`` that has read enough."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose and resolve a config.

    Args:
        config_name: the primary config.
        overrides: as on the command line.

    Raises:
        ConfigError: for a key, value or choice that does not exist, or one that is missing.
    """
    with _explained(config_name, overrides), conf_dir():
        return resolve(compose(config_name, overrides=with_lists(overrides)))


@contextmanager
def _explained(config_name: str, overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except HydraException as error:
        raise ConfigError(explain(error, config_name, overrides)) from error


def with_lists(overrides: Sequence[str]) -> list[str]:
    """``eval=a,b`` as ``eval=[a,b]``: several sets are one evaluation. With ``--multirun`` it stays a sweep.

    >>> with_lists(["eval=aime24,math500", "limit=2"])
    ['eval=[aime24,math500]', 'limit=2']
    """
    if _SWEEP & set(overrides):
        return list(overrides)
    return [re.sub(r"^eval=(\w+(?:,\w+)+)$", r"eval=[\1]", override) for override in overrides]


def resolve(config: DictConfig) -> dict[str, Any]:
    """A plain dict with every interpolation resolved, and ranks counted.

    Raises:
        ConfigError: for a value that has to be given and was not, or an interpolation to nowhere.
    """
    try:
        return with_ranks(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except MissingMandatoryValue as error:
        key = error.full_key or str(error)
        group = key.partition(".")[0]
        there = choices(group) if group in groups() else []
        other = f", or choose another {group} ({group}=<one of: {', '.join(there)}>)" if len(there) > 1 else ""
        raise ConfigError(f"{key} is not set; add {key}=... to the command{other}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(str(error))) from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can get wrong, and trouble that is known, into one line and an exit status."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        # Hydra wraps what a constructor raises; the constructor's own words say it better
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ValueError | HydraException | OmegaConfBaseException):
            told: tuple[str, int] | None = f"{one_line(str(cause))}{_where(cause)}", MISTAKEN
        else:
            told = explain_trouble(error)
        if told is None:
            raise
        sys.stderr.write(f"error: {told[0]}\n")
        sys.exit(told[1])


def _where(error: BaseException) -> str:
    """What we refuse says enough; what a library refuses may need to be looked at."""
    frames = traceback.extract_tb(error.__traceback__)
    return "" if not frames or "lightning_r1" in frames[-1].filename else " (HYDRA_FULL_ERROR=1 shows where)"


@contextmanager
def unfinished() -> Iterator[None]:
    """Turn an interruption into its exit status; a Slurm job is requeued."""
    try:
        yield
    except Interrupted as left:
        if not left.told and first_of_job():
            leave(left)
        elif not left.told:
            time.sleep(_HEAD_START_S)
        sys.exit(UNFINISHED)
    except (KeyboardInterrupt, SystemExit) as left:
        # at a second Ctrl-C Lightning exits as after an error
        if isinstance(left, SystemExit) and not interruption.abandoned:
            raise
        how = "Ctrl-C twice ended it at once, and what was not saved is lost" if interruption.abandoned else "Ctrl-C"
        by_hand = Interrupted(how)
        by_hand.requeue = False
        if first_of_job():
            leave(by_hand)
        sys.exit(UNFINISHED)
