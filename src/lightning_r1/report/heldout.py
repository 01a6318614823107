"""The same held-out prompts twice: before and after a run, or by two runs; what was learned, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_r1.evaluation.comparison import Comparison, compare
from lightning_r1.report.completions import shortened
from lightning_r1.report.read import evaluations, read_samples

CHARACTERS = 700_000
"""Of held-out completions that a page holds at most."""
_LEAST_OF_A_TEXT, _PROMPTS_OF_A_KIND = 600, 24
KINDS = {
    (False, True): "learned", (True, False): "lost", (False, False): "still wrong", (True, True): "still right",
}  # fmt: skip

Samples = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Pair:
    """Two evaluations of one set, over the prompts that both have."""

    set_name: str
    first: Samples
    second: Samples
    labels: tuple[str, str]

    @property
    def comparison(self) -> Comparison:
        """Of pass@1: the exact paired test."""
        return compare(*({id: [one["correct"] for one in samples] for id, samples in side.items()}
                         for side in (self.first, self.second)))  # fmt: skip

    def kind(self, prompt_id: str) -> str:
        """What became of a prompt: is at least half of its samples right?"""
        return KINDS[_mostly_right(self.first[prompt_id]), _mostly_right(self.second[prompt_id])]


def before_and_after(folder: Path) -> list[Pair]:
    """The first and the last evaluation of every set of a run; nothing where there is only one."""
    pairs = []
    for name, files in evaluations(folder).items():
        if len(files) > 1:
            steps = list(files)
            pairs.append(_pair(name, files[steps[0]], files[steps[-1]], (f"step {steps[0]}", f"step {steps[-1]}")))
    return _largest_first(pairs)


def of_two(first: Path, second: Path, labels: tuple[str, str]) -> list[Pair]:
    """The last evaluations of two runs, of the sets that both were measured on."""
    here, there = evaluations(first), evaluations(second)
    pairs = [
        _pair(name, here[name][max(here[name])], there[name][max(there[name])], labels)
        for name in here
        if name in there
    ]
    return _largest_first(pairs)


def _largest_first(pairs: Iterable[Pair]) -> list[Pair]:
    return sorted((pair for pair in pairs if pair.first), key=lambda pair: -len(pair.first))


def _pair(name: str, first: Path, second: Path, labels: tuple[str, str]) -> Pair:
    early, late = read_samples(first), read_samples(second)
    common = [id for id in early if id in late]
    return Pair(name, {id: early[id] for id in common}, {id: late[id] for id in common}, labels)


def prompts(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Prompts for the page, a few of every kind from all over each set.

    Returns:
        ``labels`` of the two sides; ``counts`` of the prompts by kind, over all sets; ``items`` with ``set``, ``id``,
        ``prompt``, ``kind`` and, on ``sides``, a sample each.
    """
    counts = dict.fromkeys(KINDS.values(), 0)
    chosen: list[tuple[Pair, str, str]] = []
    for pair in pairs:
        kinds: dict[str, list[str]] = {}
        for prompt_id in pair.first:
            kinds.setdefault(pair.kind(prompt_id), []).append(prompt_id)
        for kind, ids in kinds.items():
            counts[kind] += len(ids)
            chosen += [(pair, kind, prompt_id) for prompt_id in _spread(ids, _PROMPTS_OF_A_KIND)]
    chosen = chosen[: CHARACTERS // (2 * _LEAST_OF_A_TEXT)]
    room = max(_LEAST_OF_A_TEXT, CHARACTERS // max(1, 2 * len(chosen)))
    return {
        "labels": list(pairs[0].labels) if pairs else [],
        "counts": counts,
        "items": [
            {
                "set": pair.set_name,
                "id": prompt_id,
                "prompt": shortened(pair.first[prompt_id][0]["prompt"], 2 * room),
                "kind": kind,
                "sides": [_sample(side[prompt_id], room) for side in (pair.first, pair.second)],
            }
            for pair, kind, prompt_id in chosen
        ],
    }


def _sample(samples: Sequence[Mapping[str, Any]], room: int) -> dict[str, Any]:
    """One that stands for all samples of a prompt: the first that ended as most of them did."""
    mostly = _mostly_right(samples)
    shown = next((one for one in samples if bool(one["correct"]) == mostly), samples[0])
    return {
        "t": shortened(shown["completion"], room),
        "ok": bool(shown["correct"]),
        "answer": shown.get("answer"),
        "f": shown.get("finish_reason"),
        "n": shown.get("tokens"),
        "right": sum(bool(one["correct"]) for one in samples),
        "of": len(samples),
    }


def _mostly_right(samples: Iterable[Mapping[str, Any]]) -> bool:
    right = [bool(one["correct"]) for one in samples]
    return 2 * sum(right) >= len(right)


def _spread(ids: Sequence[str], most: int) -> Sequence[str]:
    return [ids[place * len(ids) // most] for place in range(most)] if len(ids) > most else ids
