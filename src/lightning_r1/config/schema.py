"""The constructor is the schema: every ``_target_`` node is held against the signature it calls.

An unknown key, a missing one or a value of the wrong type is found before anything is built, and
named by its full path with the nearest valid name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from lightning_r1.config.errors import ConfigError

_HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}


def check_signatures(node: Any, path: str = "") -> None:
    """Check a resolved config and everything in it.

    Args:
        node: plain dicts, lists and values.
        path: of the node, for messages.

    Raises:
        ConfigError: for the first key that does not fit.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_node(node, path)
        for key, value in node.items():
            check_signatures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            check_signatures(value, f"{path}[{index}]")


def locate(dotted: str, path: str = "_target_") -> Any:
    """The object that a dotted path names.

    Raises:
        ConfigError: if a part of the path does not exist.
    """
    module_name, _, attribute = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}={dotted}: not found ({error}); give a dotted path like package.module.name"
        ) from error


def _check_node(node: Mapping[str, Any], path: str) -> None:
    target = locate(node["_target_"], f"{path}._target_")
    hints, takes_more = accepted(target)
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in hints:
            if takes_more:
                continue
            raise ConfigError(f"{path}.{key} is unknown to {node['_target_']}{nearest(key, hints)}")
        if not isinstance(value, Mapping) and not fits(value, hints[key]):
            raise ConfigError(f"{path}.{key}={value!r}: expected {describe(hints[key])}")


def accepted(target: Any) -> tuple[dict[str, Any], bool]:
    """Parameter names with their annotations, and whether the target takes any others besides.

    A class that hands ``**more`` to its base accepts what its base accepts.
    """
    hints: dict[str, Any] = {}
    layers = (
        [vars(c)["__init__"] for c in inspect.getmro(target) if "__init__" in vars(c)]
        if inspect.isclass(target)
        else [target]
    )
    for layer in layers:
        annotations = _annotations(layer)
        parameters = inspect.signature(layer).parameters.values()
        for parameter in parameters:
            if parameter.name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                hints.setdefault(parameter.name, annotations.get(parameter.name, Any))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return hints, False
    return hints, True


def _annotations(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def nearest(name: str, known: Any) -> str:
    """``; did you mean ...?`` or the list of what there is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain config value can be what an annotation asks for; when in doubt, yes.

    >>> fits(1, float), fits("abc", float), fits(None, float | None), fits("a", Literal["a", "b"])
    (True, False, True, True)
    """
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if origin is tuple:
        options = get_args(hint)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        if options[-1] is Ellipsis:
            return all(fits(item, options[0]) for item in value)
        return len(value) == len(options) and all(map(fits, value, options))
    return True


def describe(hint: Any) -> str:
    """An annotation in words."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint))
    if hint is None or hint is type(None):
        return "null"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}.get(hint, str(hint))
