"""The verb *sample*: a model's completions of many prompts, and of them the traces worth learning from.

It makes the data of the cold start (from R1-Zero) and of the large SFT (from the reasoning-RL policy); with a judge
that compares two completions of a prompt, the pairs for a helpfulness model. The run folder holds ``traces.jsonl`` or
``pairs.jsonl``, and ``summary.json``. Prompts are sampled in parts, each a file when it is done:
started again, a job goes on where it stopped, and ends with the same records.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from lightning_r1.callbacks.console import console, quiet, told_progress
from lightning_r1.config.build_evaluation import launch
from lightning_r1.config.build_sampling import LabellingJob, SamplingJob, build_sampling, check_sampling
from lightning_r1.config.ending import tell_sampling
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.folder_lock import hold_together
from lightning_r1.config.run_folder import keep_config, provenance, take_folder, write_summary
from lightning_r1.config.tracking import numbers_in, tell_products, tracked
from lightning_r1.data.preferences import length_balance
from lightning_r1.experience.labelling import balance_lengths, label_pairs
from lightning_r1.experience.selection import KEPT
from lightning_r1.parallel.collectives import all_gather, rank, world_size
from lightning_r1.rewards.outcomes import Tally
from lightning_r1.rollout.engine import seed_for
from lightning_r1.text.language import count_words, language_share
from lightning_r1.text.records import read_jsonl, write_jsonl
from lightning_r1.types import Group, Preference, Prompt, ScoredGroup, Trace

TRACES, PAIRS = "traces.jsonl", "pairs.jsonl"
Job = SamplingJob | LabellingJob


def sample(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make traces, or pairs.

    Args:
        config: resolved; see ``conf/sample.yaml``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ConfigError: before anything expensive, for a config that cannot be run or a folder that holds
            another run, or one that is being written; at the end, if nothing was worth keeping.
    """
    check_sampling(config)
    quiet()
    run_dir, device = Path(config["paths"]["run_dir"]), launch(config)
    with hold_together(run_dir):
        return _sample(config, run_dir, device)


def _sample(config: Mapping[str, Any], run_dir: Path, device: Any) -> dict[str, Any]:
    finished = all_gather(take_folder(config) if rank() == 0 else None)[0]
    if finished is None:
        job = build_sampling(config, device)
        if rank() == 0:
            keep_config(run_dir, config)
        with tracked(config, "sample") as log:
            with closing(job):
                job.start()
                parts = _make_parts(config, job, run_dir / "parts")
            if rank() == 0:
                finished = _finish(config, job, parts, run_dir)
            if log is not None and finished is not None:
                log.log_metrics(numbers_in(finished, "sample"))
                tell_products([log], run_dir)
    finished = finished or {}
    if rank() == 0:
        console.print(_table(finished))
        tell_sampling(config, run_dir / (TRACES if "traces" in finished else PAIRS), finished)
    return finished


def _make_parts(config: Mapping[str, Any], job: Job, folder: Path) -> list[Path]:
    """The parts' files, up to the one with which there are enough traces; ranks take turns with them."""
    size, enough = config["sample"]["prompts_a_part"], config["sample"]["max_total"]
    starts = range(0, len(job.prompts), size)
    files = [folder / f"{number:05d}.jsonl" for number in range(len(starts))]
    job.engine.wake()
    job.engine.sync_weights(job.provenance["step"] or 0)
    used = traces = 0
    with told_progress("sample", len(job.prompts), "prompts") as told:
        for first in range(0, len(files), world_size()):
            made = _make_part(config, job, files[first + rank()], first + rank()) if first + rank() < len(files) else 0
            for kept in all_gather(made)[: len(files) - first]:
                used, traces = used + 1, traces + kept
                if enough and traces >= enough:
                    return files[:used]  # what later ranks made is not needed
            if rank() == 0:
                told(min(used * size, len(job.prompts)))
    return files


def _make_part(config: Mapping[str, Any], job: Job, file: Path, number: int) -> int:
    """Sample a part, if that is not done yet; returns its number of traces, or pairs."""
    if not file.is_file():
        write_jsonl(file, _part(config, job, number * config["sample"]["prompts_a_part"]))
    return int(read_jsonl(file)[0]["counts"].get(KEPT, 0))


def _part(config: Mapping[str, Any], job: Job, start: int) -> list[dict[str, Any]]:
    """The records of a part: its numbers, then its traces or pairs."""
    started = time.perf_counter()
    prompts = job.prompts[start : start + config["sample"]["prompts_a_part"]]
    seeds = [seed_for(config["seed"], "sample", start + place) for place in range(len(prompts))]
    numbers, kept = _labelled(job, prompts, seeds) if isinstance(job, LabellingJob) else _selected(job, prompts, seeds)
    return [numbers | {"prompts": len(prompts), "seconds": time.perf_counter() - started}, *kept]


Part = tuple[dict[str, Any], list[dict[str, Any]]]
"""Numbers, and records."""


def _selected(job: SamplingJob, prompts: list[Prompt], seeds: list[int]) -> Part:
    scoring = job.rewards.open()
    job.engine.generate(prompts, job.sampling, seeds=seeds, finished=scoring.add)
    scored = scoring.result()
    # what no rule can score a judge may
    Tally().add(scored).check(replace(job.rewards.stop_at, unscorable=None))
    kept: list[tuple[Prompt, Trace]] = []
    counts: Counter[str] = Counter()
    for group, (traces, of_group) in zip(scored, job.selection.select_all(scored, job.provenance), strict=True):
        kept += [(group.group.prompt, trace) for trace in traces]
        counts += of_group
    traces = job.rewriter.rewrite(kept) if job.rewriter else [trace for _, trace in kept]
    return _sums(scored) | {"counts": dict(counts)}, [asdict(trace) for trace in traces]


def _labelled(job: LabellingJob, prompts: list[Prompt], seeds: list[int]) -> Part:
    groups = job.engine.generate(prompts, job.sampling, seeds=seeds)
    pairs, counts = label_pairs(groups, job.labelling.judge, job.codec.template.tags, min_gap=job.labelling.min_gap)
    return {"tokens": _tokens(groups), "counts": dict(counts)}, [asdict(pair) for pair in pairs]


def _tokens(groups: list[Group]) -> int:
    return sum(len(completion.token_ids) for group in groups for completion in group.completions)


def _sums(scored: list[ScoredGroup]) -> dict[str, Any]:
    """Over all completions of a part; of each reward over those that it could score: sum and number."""
    rewards: dict[str, list[float]] = {}
    for group in scored:
        for name, scores in group.breakdown.items():
            rewards.setdefault(name, []).extend(score.value for score in scores if score.outcome.counts)
    return {
        "tokens": _tokens([group.group for group in scored]),
        "rewards": {name: [sum(values), len(values)] for name, values in rewards.items()},
    }


def _finish(config: Mapping[str, Any], job: Job, files: list[Path], run_dir: Path) -> dict[str, Any]:
    """The parts as one file of traces, or of pairs, and the summary.

    Raises:
        ConfigError: if there is none.
    """
    parts = [read_jsonl(file) for file in files]
    numbers, kept = [part[0] for part in parts], [record for part in parts for record in part[1:]]
    kept = kept[: config["sample"]["max_total"]]
    if isinstance(job, LabellingJob):
        return _finish_pairs(config, job, numbers, kept, run_dir)
    return _finish_traces(config, job, numbers, kept, run_dir)


def _finish_pairs(
    config: Mapping[str, Any],
    job: LabellingJob,
    parts: list[dict[str, Any]],
    kept: list[dict[str, Any]],
    run_dir: Path,
) -> dict[str, Any]:
    pairs = [Preference(**record) for record in kept]
    left = balance_lengths(pairs) if job.labelling.balance_lengths else pairs
    counts = sum((Counter(part["counts"]) for part in parts), Counter())
    left_out = counts - Counter({KEPT: counts[KEPT]})
    left_out += Counter({"more than max_total": counts[KEPT] - len(pairs), "length": len(pairs) - len(left)})
    faults = ", ".join(f"{name} {count:,}" for name, count in left_out.items())
    if not left:
        raise ConfigError(
            f"sample.pairs: of {counts.total():,} prompts none gave a pair ({faults}); lower sample.pairs.min_gap, "
            "sample more prompts, or take another judge or model"
        )
    balance = length_balance(left)
    summary = {
        "job": config["sample"]["name"],
        "model": config["model"]["name"],
        **{fact: job.provenance[fact] for fact in ("weights", "phase", "step")},
        "judge": job.labelling.judge.client.model,
        "prompts": counts.total(),
        "completions": counts.total() * job.sampling.group_size,
        "pairs": len(left),
        "left_out": dict(left_out.most_common()),
        "chosen_length_mean": balance.high,
        "rejected_length_mean": balance.low,
        "chosen_is_longer": balance.longer,
        "seconds": round(sum(part["seconds"] for part in parts), 2),
        "tokens": sum(part["tokens"] for part in parts),
        **provenance(),
    }
    write_jsonl(run_dir / PAIRS, [asdict(pair) for pair in left])
    write_summary(run_dir, summary)
    return summary


def _finish_traces(
    config: Mapping[str, Any],
    job: SamplingJob,
    parts: list[dict[str, Any]],
    traces: list[dict[str, Any]],
    run_dir: Path,
) -> dict[str, Any]:
    summary = _summary(config, job, parts, traces)
    if not traces:
        faults = ", ".join(f"{name} {count:,}" for name, count in summary["left_out"].items())
        raise ConfigError(
            f"sample.require: none of {summary['completions']:,} completions is worth keeping ({faults}); look at some "
            "with recipes/evaluate.py, loosen sample.require or sample.faults, or take another model"
        )
    write_jsonl(run_dir / TRACES, traces)
    write_summary(run_dir, summary)
    return summary


def _summary(
    config: Mapping[str, Any], job: SamplingJob, parts: list[dict[str, Any]], traces: list[dict[str, Any]]
) -> dict[str, Any]:
    def total(key: str) -> float:
        return sum(part[key] for part in parts)

    counts = sum((Counter(part["counts"]) for part in parts), Counter())
    names = sorted({name for part in parts for name in part["rewards"]})
    of_reward = {name: [part["rewards"].get(name, (0, 0)) for part in parts] for name in names}
    sums = {name: (sum(value for value, _ in of), sum(count for _, count in of)) for name, of in of_reward.items()}
    left_out = counts - Counter({KEPT: counts[KEPT]}) + Counter({"more than max_total": counts[KEPT] - len(traces)})
    thinking = [(job.codec.template.tags.thinking(trace["completion"]), trace["language"]) for trace in traces]
    shares = [language_share(text, language) for text, language in thinking if count_words(text)]
    return {
        "job": config["sample"]["name"],
        "model": config["model"]["name"],
        **{fact: job.provenance[fact] for fact in ("weights", "phase", "step")},
        "prompts": total("prompts"),
        "prompts_kept": len({trace["id"].rpartition("/")[0] for trace in traces}),
        "completions": counts.total(),
        "traces": len(traces),
        "left_out": dict(left_out.most_common()),
        "rewards": {name: value / count for name, (value, count) in sums.items() if count},
        "language_share": fmean(shares) if shares else None,
        "length_mean": total("tokens") / counts.total(),
        "trace_length_mean": fmean(trace["provenance"]["tokens"] for trace in traces) if traces else 0.0,
        "rewritten": sum(trace["provenance"]["rewritten_by"] is not None for trace in traces),
        "seconds": round(total("seconds"), 2),
        "tokens": total("tokens"),
        **provenance(),
    }


def _table(summary: Mapping[str, Any]) -> Table:
    """What became of the completions, or of the prompts where pairs were made of them."""
    kept, of = ("traces", "completions") if "traces" in summary else ("pairs", "prompts")
    table = Table(
        title=f"{summary['completions']:,} completions of {summary['prompts']:,} prompts", title_justify="left"
    )
    table.add_column("what became of them")
    table.add_column(of, justify="right")
    table.add_row(f"[bold]{kept}[/]", f"[bold]{summary[kept]:,}[/]")
    for name, count in summary["left_out"].items():
        table.add_row(name, f"{count:,}")
    return table
