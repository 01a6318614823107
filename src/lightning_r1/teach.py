"""The verb *teach*: a teacher reads traces, and what it thinks of every token is stored as lessons.

The run folder holds ``lessons/`` (see :mod:`lightning_r1.data.lessons`) and ``summary.json``. Every shard is made
on its own from a fixed part of the traces: started again, a job keeps the shards that are whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import console, quiet, told_progress
from lightning_r1.config.build_evaluation import launch
from lightning_r1.config.build_teaching import TeachingJob, build_teaching, check_teaching, trace_parts
from lightning_r1.config.ending import tell_teaching
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.folder_lock import hold_together
from lightning_r1.config.run_folder import keep_config, provenance, take_folder, write_summary
from lightning_r1.config.tracking import numbers_in, tell_products, tracked
from lightning_r1.data.lessons import Lessons, MadeFrom, ShardFacts, read_facts, traces_hash, write_index, write_shard
from lightning_r1.data.rows import DataError
from lightning_r1.experience.teaching import teach_traces
from lightning_r1.parallel.collectives import all_gather, rank, world_size
from lightning_r1.types import Trace

LESSONS = "lessons"
# how the work is shared, and cut into forwards: no lesson depends on it, up to rounding
_MAY_CHANGE = ("trainer", "parallel", "teach.micro_batch_tokens")


def teach(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make lessons.

    Args:
        config: resolved; see ``conf/teach.yaml``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ConfigError: for a config that cannot be run, a folder that holds another run or is being written, and
            shards that were made from something else.
    """
    check_teaching(config)
    quiet()
    run_dir, device = Path(config["paths"]["run_dir"]), launch(config)
    with hold_together(run_dir):
        return _teach(config, run_dir, device)


def _teach(config: Mapping[str, Any], run_dir: Path, device: Any) -> dict[str, Any]:
    finished = all_gather(_finished(config) if rank() == 0 else None)[0]
    if finished is None:
        job, started = build_teaching(config, device), time.perf_counter()
        if rank() == 0:
            keep_config(run_dir, config)
        with tracked(config, "teach") as log:
            shards = _make_shards(config, job, run_dir / LESSONS)
            finished = _finish(config, shards, time.perf_counter() - started) if rank() == 0 else {}
            if log is not None:
                log.log_metrics(numbers_in(finished, "teach"))
                tell_products([log], run_dir)
    if rank() == 0:
        tell_teaching(config, run_dir / LESSONS, finished)
    return finished


def _finished(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary, if the folder holds this job finished and its lessons are whole."""
    finished = take_folder(config, may_change=_MAY_CHANGE)
    if finished is not None:
        try:
            Lessons(Path(config["paths"]["run_dir"]) / LESSONS)
        except DataError as error:
            console.print(str(error), soft_wrap=True)
            return None
    return finished


def _make_shards(config: Mapping[str, Any], job: TeachingJob, folder: Path) -> list[Path]:
    """All shards' files; ranks take turns with them."""
    files = [folder / f"{number:05d}.safetensors" for number in range(job.parts)]
    with told_progress("teach", len(files), "shards") as told:
        for number, traces in enumerate(trace_parts(config)):
            if number % world_size() == rank():
                _make_shard(config, job, files[number], traces)
            if rank() == 0:
                told(number + 1)
    all_gather(None)  # the index is of shards that are all there
    return files


def _make_shard(config: Mapping[str, Any], job: TeachingJob, file: Path, traces: Sequence[Trace]) -> None:
    """Score a part of the traces, if that is not done yet."""
    made_from, source = job.made_from, traces_hash(traces)
    if file.is_file():
        _check_same(file, made_from, source)
        return
    rows = [(trace.id, *job.codec.trace_ids(trace.question, trace.completion)) for trace in traces]
    short = [row for row in rows if len(row[1]) + len(row[2]) <= made_from.max_tokens]
    taught = teach_traces(
        job.teacher,
        short,
        ids=made_from.ids,
        top_k=made_from.top_k,
        temperature=made_from.temperature,
        logprobs_dtype=made_from.logprobs_dtype,
        micro_batch_tokens=config["teach"]["micro_batch_tokens"],
        pad_id=job.codec.pad_id,
    )
    facts = ShardFacts(
        made_from=made_from,
        traces=source,
        left_out=len(rows) - len(short),
        ids=[lesson.id for lesson in taught.lessons],
        tokens=taught.tokens,
        teacher_entropy=taught.teacher_entropy,
        tail=taught.tail,
    )
    write_shard(file, taught.lessons, facts)


def _check_same(file: Path, made_from: MadeFrom, source: str) -> None:
    """A shard that is there goes into the index unread: it must be of this teacher and these traces."""
    facts = read_facts(file)
    if facts.made_from.weights != made_from.weights:
        raise ConfigError(
            f"teacher.path={made_from.teacher}: {file} was made by other weights ({facts.made_from.weights}, these "
            f"are {made_from.weights}); choose another name=, or resume=never"
        )
    if facts.traces != source or facts.made_from != made_from:
        raise ConfigError(f"traces.path: {file} was made from other traces; choose another name=, or resume=never")


def _finish(config: Mapping[str, Any], shards: Sequence[Path], seconds: float) -> dict[str, Any]:
    """The index and the summary.

    Raises:
        ConfigError: if every trace was too long.
    """
    index = write_index(shards[0].parent, shards)
    if not index["lessons"]:
        raise ConfigError(
            f"teach.max_tokens={config['teach']['max_tokens']}: all {index['left_out']} traces are longer"
        )
    told = ("lessons", "left_out", "tokens", "teacher_entropy", "tail")
    summary = {
        **{name: index[name] for name in told},
        "made_from": index["made_from"],
        "shards": len(shards),
        "seconds": round(seconds, 2),
        **provenance(),
    }
    write_summary(Path(config["paths"]["run_dir"]), summary)
    return summary
