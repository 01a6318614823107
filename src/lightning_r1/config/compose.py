"""From a command line to a plain, resolved config; what a user got wrong is one line.

A recipe is a function of a plain config::

    @recipe("train")
    def main(config): ...

Overrides are composed once before Hydra runs the recipe, so that a wrong key, value or choice is told in
one line with the nearest valid name. ``HYDRA_FULL_ERROR=1`` shows the whole stack instead.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from lightning_r1.config.build_strategy import with_ranks
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.leaving import leave
from lightning_r1.parallel.interruption import MISTAKEN, UNFINISHED, Interrupted, first_of_job, interruption
from lightning_r1.parallel.slurm_job import job_name

CONF = Path(__file__).parents[3] / "conf"
_HEAD_START_S = 10.0  # of the rank that requeues the job, before those end that do not know each other yet


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
            sys.argv[1:] = overrides = with_lists(sys.argv[1:])
            if not any(argument.startswith("-") for argument in overrides):
                with one_line_errors():
                    compose_config(config_name, overrides)
            with unfinished(), interruption.listening():
                job()

        return main

    return wrap


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose and resolve a config.

    Args:
        config_name: the primary config.
        overrides: as on the command line.

    Raises:
        ConfigError: for a key, value or choice that does not exist, or one that is missing.
    """
    try:
        with _conf_dir():
            return resolve(compose(config_name, overrides=with_lists(overrides)))
    except OverrideParseException as error:
        raise ConfigError(f"{error.override}: {_one_line(str(error))}") from error
    except HydraException as error:
        raise ConfigError(_explain(error, config_name, overrides)) from error


def with_lists(overrides: Sequence[str]) -> list[str]:
    """``eval=a,b`` as ``eval=[a,b]``: several sets are one evaluation. With ``--multirun`` it stays a sweep.

    >>> with_lists(["eval=aime24,math500", "limit=2"])
    ['eval=[aime24,math500]', 'limit=2']
    """
    if {"-m", "--multirun"} & set(overrides):
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
        raise ConfigError(f"{key} is not set; add {key}=... to the command") from error
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(str(error))) from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can get wrong into one line and exit status 2."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException, ValueError) as error:
        cause: BaseException = error
        # Hydra wraps what a constructor raises; the constructor's own words say it better
        while isinstance(cause, HydraException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, ValueError | HydraException | OmegaConfBaseException):
            raise
        sys.stderr.write(f"error: {_one_line(str(cause))}\n")
        sys.exit(MISTAKEN)


@contextmanager
def unfinished() -> Iterator[None]:
    """Turn an interruption into its exit status; a Slurm job is requeued."""
    try:
        yield
    except Interrupted as left:
        if not left.told and first_of_job():
            leave(left)
        elif not left.told and job_name():
            time.sleep(_HEAD_START_S)
        sys.exit(UNFINISHED)


@contextmanager
def _conf_dir() -> Iterator[None]:
    """Hydra's search path; a recipe that is running has one already."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _explain(error: HydraException, config_name: str, overrides: Sequence[str]) -> str:
    """Hydra's message as one line with the nearest valid name."""
    message = str(error)
    if match := re.search(r"You must specify '([^']+)'", message):
        return f"{match[1]} is not chosen; add {match[1]}=<one of: {_choices(match[1])}>"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^']+)'", message):
        return f"{match[1]}={match[2]}: there is no such choice; choose one of: {_choices(match[1])}"
    if match := re.search(r"Could not override '([^']+)'", message):
        known = _known_keys(config_name, overrides)
        wrong = match[1]
        # of a key in an overriding {...} only OmegaConf knows the path
        inside = getattr(error.__cause__, "full_key", None) or ""
        if inside.startswith(f"{wrong}."):
            wrong = inside
        parent = wrong.rpartition(".")[0]
        siblings = [key for key in known if key.rpartition(".")[0] == parent]
        close = difflib.get_close_matches(wrong, siblings, n=1) or difflib.get_close_matches(wrong, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"see --help; to add a new key write +{wrong}=..."
        return f"{wrong}: there is no such key; {hint}"
    return _one_line(message)


def _choices(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def _known_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Groups, and the keys of the config as far as it composes."""
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    choices = [override for override in overrides if override.partition("=")[0] in groups]
    try:
        with _conf_dir():
            config = OmegaConf.to_container(compose(config_name, overrides=choices), resolve=False)
    except HydraException:
        return groups
    return [*groups, *_paths(config)]


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _paths(value, f"{prefix}{key}.")


def _one_line(message: str) -> str:
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())
