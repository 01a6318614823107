"""Completions as rows of a table, for loggers that have tables: a few of many, spread over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L

from lightning_r1.evaluation.results import Sample
from lightning_r1.types import Outcome

Table = tuple[list[str], list[list[Any]]]
"""Columns and rows."""

_MOST_CHARACTERS = 20_000  # of a text in a cell; its beginning and its end are kept


def grow_table(
    trainer: L.Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, step: int
) -> None:
    """Add rows to a table of every logger that has tables."""
    if not rows:
        return
    for logger in trainer.loggers:
        if grow := getattr(logger, "grow_table", None):
            grow(name, columns, rows, step=step)


def completion_table(records: Sequence[Mapping[str, Any]], rewards: Sequence[str], most: int) -> Table:
    """Completions of a rollout.

    Args:
        records: lines of a rollout's file.
        rewards: names; a cell is empty where a reward is not for the prompt's domain.
        most: rows.
    """
    columns = ["step", "group", "prompt", "completion", "reward", *(f"reward/{name}" for name in rewards)]
    rows = [
        [
            record["step"],
            record["prompt_id"],
            _short(record["prompt"]),
            _short(record["completion"]),
            record["reward"],
            *(record["rewards"].get(name) for name in rewards),
            record["advantage"],
            outcome_of(record["outcomes"]),
            record["finish_reason"],
            record["tokens"],
        ]
        for record in spread(records, most)
    ]
    return [*columns, "advantage", "outcome", "finish_reason", "tokens"], rows


def sample_table(samples: Sequence[Sample], most: int, *, step: int | None = None) -> Table:
    """Samples of an evaluation, one of a problem: the same problems each time.

    Args:
        samples: of one set.
        most: rows.
        step: of the model that made them, if it is one of many.
    """
    first = {one.prompt_id: one for one in reversed(samples)}
    columns = ["problem", "prompt", "completion", "answer", "correct", "outcome", "finish_reason", "tokens"]
    rows: list[list[Any]] = [
        [one.prompt_id, _short(one.prompt), _short(one.completion), one.answer, one.correct, one.outcome,
         one.finish_reason, one.tokens]
        for one in spread(list(reversed(first.values())), most)
    ]  # fmt: skip
    return (columns, rows) if step is None else (["step", *columns], [[step, *row] for row in rows])


def score_table(summary: Mapping[str, Any]) -> Table:
    """An evaluation's numbers, a row a set.

    Args:
        summary: of the evaluation.
    """
    numbers = {
        name: {key.removeprefix(f"eval/{name}/"): value for key, value in summary["after"].items()
               if key.startswith(f"eval/{name}/")}
        for name in summary["sets"]
    }  # fmt: skip
    columns = list(dict.fromkeys(key for of_set in numbers.values() for key in of_set))
    facts = {name: [summary["sets"][name][fact] for fact in ("problems", "group_size")] for name in numbers}
    rows = [[name, *facts[name], *(of_set.get(key) for key in columns)] for name, of_set in numbers.items()]
    return ["set", "problems", "samples", *columns], rows


def spread(things: Sequence[Any], most: int) -> list[Any]:
    """Some of them, evenly spread, the first one always.

    >>> spread("abcdefgh", 3)
    ['a', 'c', 'f']
    """
    return [things[place * len(things) // most] for place in range(most)] if len(things) > most else list(things)


def outcome_of(outcomes: Mapping[str, str]) -> str:
    """How the scoring ended, where it did not end well for every reward.

    >>> outcome_of({"accuracy": "timeout", "format": "ok"}), outcome_of({"format": "ok"})
    ('accuracy timeout', 'ok')
    """
    return ", ".join(f"{name} {how}" for name, how in outcomes.items() if how != Outcome.OK.value) or Outcome.OK.value


def _short(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
