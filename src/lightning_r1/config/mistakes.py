"""A mistake in the command, in one line: what is wrong, and the nearest thing that is right.

Hydra says what it could not do. What the user meant is looked for here: among the choices of the group, the keys beside
the wrong one, keys of that name elsewhere, choices of that name in other groups.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from lightning_r1.config.conf_dir import choices, conf_dir, groups

_MOST = 3  # keys in one hint
_FEW = 20  # choices that a line can show


def explain(error: HydraException, config_name: str, overrides: Sequence[str]) -> str:
    """Hydra's message as one line with the nearest valid name.

    Args:
        error: what composing raised.
        config_name: the primary config.
        overrides: as on the command line.
    """
    message = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, config_name, overrides)
    if match := re.search(r"You must specify '([^']+)'", message):
        return f"{match[1]} is not chosen; add {match[1]}=<one of: {', '.join(choices(match[1]))}>"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", message):
        group, _, folder = match[1].partition("experiment/")
        return _no_such_choice("experiment", f"{folder}/{match[2]}") if folder else _no_such_choice(group, match[2])
    if match := re.search(r"Could not override '([^']+)'", message):
        # of a key in an overriding {...} only OmegaConf knows the path
        inside = getattr(error.__cause__, "full_key", None) or ""
        return _no_such_key(inside if inside.startswith(f"{match[1]}.") else match[1], config_name, overrides)
    if match := re.search(r"Ambiguous value for argument '([^=']+)=([^']*)'", message):
        key, value = match[1], match[2]
        return (
            f"{key}={value}: a run has one value; leave one of them, write a list as '{key}=[{value}]', or make a run "
            "of each with --multirun"
        )
    return one_line(message)


def unknown_option(argument: str, config_name: str) -> str:
    """What is said of an option that there is not: most are keys, which are written without dashes.

    Args:
        argument: as on the command line, ``--max_steps`` or ``--algo.kl_coef=0``.
        config_name: the primary config.
    """
    name, _, value = argument.lstrip("-").partition("=")
    close = _close_keys(name, _known_keys(config_name, [])) or ([name] if name in groups() else [])
    key = close[0] if len(close) == 1 else name
    return f"{argument}: there is no such option; keys are written without dashes: {key}={value or '...'}"


def first_of_sweep(overrides: Sequence[str]) -> list[str]:
    """The overrides of the first run of a sweep, ``optim.lr=1e-6,3e-6`` as ``optim.lr=1e-6``.

    Raises:
        OverrideParseException: for what cannot be read.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [
        f"{one.get_key_element()}={next(one.sweep_string_iterator())}"
        if one.is_sweep_override()
        else str(one.input_line)
        for one in parsed
    ]


def one_line(message: str) -> str:
    """A message of many lines in one."""
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def _unreadable(override: str, config_name: str, overrides: Sequence[str]) -> str:
    if override.startswith("=") or any(other.startswith("=") for other in overrides):
        return f"{override}: no spaces around the =; write key=value"
    if "=" not in override and not override.startswith("~"):
        for group in groups():
            if override in choices(group):
                return f"{override}: the = is missing; did you mean {group}={override}?"
        known = _known_keys(config_name, [other for other in overrides if "=" in other])
        close = [override] if override in known else _close_keys(override, known)
        return f"{override}: the = is missing; write {close[0] if len(close) == 1 else override}=<value>"
    return (
        f"{override}: this cannot be read; close every bracket and quote, and put the whole in quotes where it has "
        "spaces, brackets or commas: 'key=[a,b]'"
    )


def _no_such_choice(group: str, name: str) -> str:
    if name.startswith("submitit"):
        return "hydra/launcher=slurm: submitit is not installed; install it with pip install 'lightning-r1[slurm]'"
    said, there = f"{group}={name}: there is no such choice", choices(group)
    if elsewhere := [other for other in groups() if name in choices(other)]:
        return f"{said}; did you mean {elsewhere[0]}={name}?"
    close = difflib.get_close_matches(name, there, n=1) or [one for one in there if one.startswith(name)][:1]
    if close and len(there) > _FEW:
        return f"{said}; did you mean {close[0]}? --help shows all {len(there)}"
    return f"{said}; {f'did you mean {close[0]}? There are' if close else 'choose one of'}: {', '.join(there)}"


def _no_such_key(wrong: str, config_name: str, overrides: Sequence[str]) -> str:
    if wrong in groups():
        return f"{wrong}: there is no such group here, it belongs to another recipe; see --help"
    close = _close_keys(wrong, _known_keys(config_name, overrides))
    hint = f"did you mean {' or '.join(close)}?" if close else f"see --help; to add a new key write +{wrong}=..."
    return f"{wrong}: there is no such key; {hint}"


def _close_keys(wrong: str, known: Sequence[str]) -> list[str]:
    """What may be meant: a key beside it that is almost the same, that very name elsewhere, or something like it."""
    parent, _, last = wrong.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    if close := difflib.get_close_matches(wrong, siblings, n=1, cutoff=0.8):
        return close
    same = [key for key in known if key.rpartition(".")[2] == last]
    if same:
        return sorted(same, key=lambda key: (key.count("."), known.index(key)))[:_MOST]
    by_last = {key.rpartition(".")[2]: key for key in reversed(known)}
    return (
        difflib.get_close_matches(wrong, siblings, n=1)
        or difflib.get_close_matches(wrong, known, n=1)
        or [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1, cutoff=0.75)]
    )


def _known_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Groups, and the keys of the config as far as it composes."""
    chosen = [override for override in overrides if override.partition("=")[0] in groups()]
    try:
        with conf_dir():
            config = OmegaConf.to_container(compose(config_name, overrides=chosen), resolve=False)
    except HydraException:
        return groups()
    return [*groups(), *_paths(config)]


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _paths(value, f"{prefix}{key}.")
