"""Which completions a page holds: rollouts from all over the run, of each the groups that a person would look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_r1.report.series import Curve, rounded

ROLLOUTS = 32
"""That a page holds at most."""
CHARACTERS = 2_400_000
"""Of completions that a page holds at most, shared by its rollouts."""
_LEAST_OF_A_TEXT = 600
_TOLD = 4  # times that one cause was told, whose rollouts are taken
_READ_BYTES = 2 * 2**20  # of one rollout's file: reading a large run must not take minutes

Group = list[dict[str, Any]]


def browse(folder: Path, curves: Mapping[str, Curve], *, group_size: int | None) -> dict[str, Any]:
    """Rollouts for the page.

    Args:
        folder: of the run.
        curves: where its numbers were extreme, a rollout is taken.
        group_size: of the run, if known: two groups of one prompt may follow each other.

    Returns:
        ``rollouts``, each with ``number``, ``step``, ``completions`` in its file (null if not all were read), ``mean``
        reward of those read, and ``groups``; and ``left_out``, a sentence on what the page does not hold. A group has
        ``id``, ``prompt``, ``domain``, ``why`` it was chosen, and ``c``, its completions.
    """
    files = {int(file.stem): file for file in folder.glob("rollouts/*.jsonl") if file.stem.isdigit()}
    chosen = choose(sorted(files), curves)
    rollouts, seen, kept = [], 0, 0
    for number in chosen:
        records, whole = _read(files[number])
        groups = _groups(records, group_size)
        if not groups:
            continue
        picked = _pick(groups, CHARACTERS // len(chosen))
        seen, kept = seen + len(records), kept + sum(len(group) for group, _ in picked)
        rewards = [record["reward"] for record in records if record.get("reward") is not None]
        rollouts.append(
            {
                "number": number,
                "step": records[0].get("step"),
                "completions": len(records) if whole else None,
                "mean": rounded(fmean(rewards)) if rewards else None,
                "groups": [_group(group, why, _room(picked, CHARACTERS // len(chosen))) for group, why in picked],
            }
        )
    return {"rollouts": rollouts, "left_out": _left_out(len(files), len(rollouts), seen, kept)}


def choose(numbers: Sequence[int], curves: Mapping[str, Curve], most: int = ROLLOUTS) -> list[int]:
    """Rollouts to show: evenly spread, the first and the last, and those where a number was extreme.

    Args:
        numbers: of the recorded rollouts, rising.
        curves: of the run; ``progress/rollouts`` says which rollout a step used.
        most: that are chosen at most.
    """
    if len(numbers) <= most:
        return list(numbers)
    rollout_at = {
        step: int(number)
        for step, number in reversed(list(zip(*curves.get("progress/rollouts", ([], [])), strict=True)))
    }
    extreme = []
    for name, pick in (
        ("rollout/reward_mean", max), ("rollout/reward_mean", min), ("rollout/truncated_fraction", max),
        ("rollout/think_length_mean", max), ("policy/ratio_max", max), ("optim/grad_norm", max),
        ("policy/logprob_gap_max", max),
    ):  # fmt: skip
        steps, values = curves.get(name, ([], []))
        if finite := [(value, step) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]:
            extreme.append(rollout_at.get(pick(finite)[1]))
    for name, (steps, values) in curves.items():
        if name.startswith("watchdog/"):
            extreme += [rollout_at.get(step) for step, told in zip(steps, values, strict=True) if told][:_TOLD]
    kept = set([number for number in extreme if number in set(numbers)][: most // 2]) | {numbers[0], numbers[-1]}
    spread = most - len(kept)
    for place in range(spread):
        kept.add(numbers[round(place * (len(numbers) - 1) / max(1, spread - 1))])
    return sorted(kept)


def _read(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """Records of a rollout, and whether all of them."""
    records: list[dict[str, Any]] = []
    read = 0
    with file.open(encoding="utf-8") as lines:
        for text in lines:
            read += len(text)
            if read > _READ_BYTES and records:
                return records, False
            records.append(json.loads(text))
    return records, True


def _groups(records: Sequence[Mapping[str, Any]], group_size: int | None) -> list[Group]:
    """Completions of one prompt that follow each other; a group that was not read to its end is left out, but alone."""
    groups: list[Group] = []
    for _, members in groupby(records, key=lambda record: record["prompt_id"]):
        of_prompt = [dict(record) for record in members]
        size = group_size or len(of_prompt)
        groups += [of_prompt[start : start + size] for start in range(0, len(of_prompt), size)]
    return groups


def _pick(groups: list[Group], room: int) -> list[tuple[Group, str]]:
    """The groups that a person would look at first, with the reason, then others, as many as there is room for."""
    picked: dict[int, tuple[Group, str]] = {}
    for group, why in _notable(groups):
        size = sum(min(len(record["completion"]), 4 * _LEAST_OF_A_TEXT) for record in group)
        if id(group) not in picked and (not picked or size <= room):
            picked[id(group)] = (group, why)
            room -= size
    return list(picked.values())


def _notable(groups: list[Group]) -> Iterator[tuple[Group, str]]:
    """Reasons to look at a group, the strongest first; then the groups from all over the rollout."""
    means = [fmean(_rewards(group) or [0.0]) for group in groups]
    spread = [max(_rewards(group), default=0.0) - min(_rewards(group), default=0.0) for group in groups]
    order = range(len(groups))
    yield groups[max(order, key=spread.__getitem__)], "largest spread"
    yield groups[min(order, key=means.__getitem__)], "lowest reward"
    yield groups[max(order, key=means.__getitem__)], "highest reward"
    for what, is_so in (("a failed check", _failed), ("cut off", _cut_off)):
        if found := next((group for group in groups if any(map(is_so, group))), None):
            yield found, what
    half = max(1, len(groups) // 2)
    for start in range(half):
        yield from ((group, "") for group in groups[start::half])


def _rewards(group: Group) -> list[float]:
    return [record["reward"] for record in group if record.get("reward") is not None]


def _failed(record: Mapping[str, Any]) -> bool:
    """Whether one of its rewards timed out, crashed or could not score it."""
    return bool(set(record.get("outcomes", {}).values()) - {"ok", "wrong_format"})


def _cut_off(record: Mapping[str, Any]) -> bool:
    return record.get("finish_reason") == "length"


def _room(picked: Sequence[tuple[Group, str]], characters: int) -> int:
    """Characters for each text, so that all of them fit."""
    return max(_LEAST_OF_A_TEXT, characters // max(1, sum(len(group) for group, _ in picked)))


def _group(group: Group, why: str, room: int) -> dict[str, Any]:
    return {
        "id": group[0]["prompt_id"],
        "prompt": shortened(group[0]["prompt"], 4 * room),
        "domain": group[0].get("domain"),
        "why": why,
        "c": [
            {
                "t": shortened(record["completion"], room),
                "r": {name: rounded(value, 4) for name, value in record.get("rewards", {}).items()},
                "o": {name: outcome for name, outcome in record.get("outcomes", {}).items() if outcome != "ok"},
                "s": rounded(record.get("reward"), 4),
                "a": rounded(record.get("advantage"), 4),
                "f": record.get("finish_reason"),
                "n": record.get("tokens"),
            }
            for record in group
        ],
    }


def shortened(text: str, room: int) -> str:
    """The beginning and the end of a long text, and how much is left out between them."""
    if len(text) <= room + 80:
        return text
    return f"{text[: room // 2]}\n[... {len(text) - room:,} characters left out ...]\n{text[-(room - room // 2) :]}"


def _left_out(recorded: int, shown: int, seen: int, kept: int) -> str:
    if not recorded:
        return "No rollouts are recorded in this folder."
    rollouts = f"{shown:,} of {recorded:,} recorded rollouts" if shown < recorded else f"all {recorded:,} rollouts"
    return (
        f"This page holds {kept:,} completions of {rollouts}, in which {seen:,} were looked at; long texts have their "
        "middle left out. All of them are in rollouts/*.jsonl."
    )
