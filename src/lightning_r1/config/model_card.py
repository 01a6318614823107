"""The card in a model's folder: written with the model, completed when it is evaluated later."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_r1.callbacks.console import console
from lightning_r1.config.card_facts import is_hub_id
from lightning_r1.config.card_text import card_text
from lightning_r1.models.asked import hub_file, reasoning_parser, shows_earlier_turns
from lightning_r1.models.export import CARD, read_card
from lightning_r1.models.tokenizer import load_tokenizer
from lightning_r1.text.records import write_whole

_README = "README.md"
_HOW = ("problems", "group_size", "temperature", "top_p", "max_new_tokens")


def write_model_card(folder: Path, *, base: str | None = None) -> None:
    """Write ``README.md`` from the facts beside the weights.

    Args:
        folder: of an exported model.
        base: of the model that it starts from: its card tells the licence.
    """
    card = read_card(folder)
    if base is not None and (license := license_of(base)):
        card["license"] = license
    _write(folder, card, readme=True)


def add_evaluation(path: str, summary: Mapping[str, Any]) -> None:
    """Complete the card of the model that was evaluated, if it was exported here and is not another's to write.

    A card that somebody has edited is left as it is; its numbers are kept beside it all the same.

    Args:
        path: of the model.
        summary: of an evaluation.
    """
    folder = Path(path)
    if "kind" not in read_card(folder) or not os.access(folder, os.W_OK):
        return
    with _held(folder):  # several sets are evaluated at once, in jobs of their own
        _add(folder, summary)


def _add(folder: Path, summary: Mapping[str, Any]) -> None:
    card, readme = read_card(folder), folder / _README
    untouched = not readme.is_file() or _digest(readme.read_text(encoding="utf-8")) == card.get("readme")
    done = card.setdefault("evaluations", {})
    for name, facts in summary["sets"].items():
        numbers = {key: value for key, value in summary["after"].items() if key.startswith(f"eval/{name}/")}
        how = {key: facts[key] for key in _HOW if key in facts}
        done[name] = {"how": how, "after": numbers, "commit": summary["commit"]}
    _write(folder, card, readme=untouched)
    if untouched:
        console.print(f"scores are in {readme} too", soft_wrap=True)
    else:
        console.print(f"{readme} was edited by hand and is left; the scores are in {folder / CARD}", soft_wrap=True)


def _write(folder: Path, card: dict[str, Any], *, readme: bool) -> None:
    """The facts, and the file that tells them; by its digest an edited one is known later."""
    if readme:
        text = _text(folder, card)
        card["readme"] = _digest(text)
        write_whole(folder / _README, text)
    write_whole(folder / CARD, json.dumps(card, indent=2) + "\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Alone with a folder, where its file system can lock one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def license_of(base: str) -> dict[str, str]:
    """What the card of a model says of its licence, in a folder or among the hub's files that are here already."""
    readme = hub_file(base, _README) if is_hub_id(base) else Path(base, _README)
    if readme is None or not readme.is_file():
        return {}
    _, *parts = readme.read_text(encoding="utf-8").split("---\n", 2)
    try:
        facts = yaml.safe_load(parts[0]) if parts else None
    except yaml.YAMLError:
        return {}
    names = ("license", "license_name", "license_link")
    return {name: str(facts[name]) for name in names if facts.get(name)} if isinstance(facts, dict) else {}


def _text(folder: Path, card: Mapping[str, Any]) -> str:
    remembers, parser = False, None
    if card["kind"] != "reward_model":
        tokenizer = load_tokenizer(folder)
        remembers, parser = shows_earlier_turns(tokenizer), reasoning_parser(tokenizer)
    return card_text(card, license=card.get("license", {}), remembers=remembers, parser=parser)
