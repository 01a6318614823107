"""The verb *evaluate*: one model on held-out sets, sampled once, graded as often as wanted.

The run folder holds every sample (``samples/<set>.jsonl``), results problem by problem
(``problems/<set>.jsonl``) and ``summary.json``. Started again, an evaluation goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import console, quiet, told_progress
from lightning_r1.callbacks.score_tables import comparisons, scores
from lightning_r1.callbacks.tables import sample_table, score_table
from lightning_r1.config.build_evaluation import (
    EvaluationSet,
    build_evaluation_sets,
    build_sampler,
    check_evaluation,
    launch,
)
from lightning_r1.config.build_graders import build_grader
from lightning_r1.config.build_policy import build_codec
from lightning_r1.config.build_rewards import build_scorer
from lightning_r1.config.ending import tell_evaluation
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.folder_lock import hold_together
from lightning_r1.config.model_card import add_evaluation
from lightning_r1.config.run_folder import keep_config, provenance, take_folder, write_summary
from lightning_r1.config.tracking import tracked
from lightning_r1.evaluation.comparison import Comparison, compare
from lightning_r1.evaluation.evaluator import check_prompts, grade_again, sample
from lightning_r1.evaluation.results import Sample, numbers_of, problems_of
from lightning_r1.evaluation.store import SampleStore
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.collectives import all_gather, rank
from lightning_r1.rewards.classes import CalculatedClasses
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import close
from lightning_r1.text.records import read_jsonl, write_jsonl

_LOGGED_SAMPLES = 64  # problems of a set of which a logger's table holds a sample


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate a model.

    Args:
        config: resolved; see ``conf/evaluate.yaml``.

    Returns:
        What ``summary.json`` holds: ``sets`` with how each was sampled, and their numbers under
        ``after``, as ``eval/<set>/<metric>``.

    Raises:
        ConfigError: before anything expensive, for a config that cannot be run or a folder that holds
            another run, or one that is being written.
    """
    check_evaluation(config)
    quiet()
    run_dir, device = Path(config["paths"]["run_dir"]), None if config["rescore"] else launch(config)
    with hold_together(run_dir):
        return _evaluate(config, run_dir, device)


def _evaluate(config: Mapping[str, Any], run_dir: Path, device: Any) -> dict[str, Any]:
    rescore = config["rescore"]
    # graded anew, the golds of the sets may be others; that the prompts are not is checked one by one
    may_change = ("compare", "rescore", "trainer", "parallel", *(["eval.sets"] if rescore else []))
    finished = all_gather(take_folder(config, may_change=may_change) if rank() == 0 else None)[0]
    if finished is None or rescore:
        codec = build_codec(config)
        sets = build_evaluation_sets(config, codec)
        for of_set in sets:
            check_prompts(of_set.prompts)
        if rank() == 0:
            keep_config(run_dir, config)
        started = time.perf_counter()
        by_name = {of_set.name: of_set.prompts for of_set in sets}
        with (
            tracked(config, "evaluate") as log,
            closing(build_grader(config, codec, by_name, build_scorer(config))) as grader,
        ):
            if rescore:
                _grade_again(sets, codec, run_dir, grader)
            else:
                _sample(config, sets, codec, run_dir, device, grader)
            if rank() == 0:
                classes = CalculatedClasses(grader.scorer)
                finished = _finish(config, sets, run_dir, classes, seconds=time.perf_counter() - started)
                if log is not None:
                    _log(log, finished, run_dir)
    finished = finished or {}
    if rank() == 0:
        console.print(scores(finished))
        if config["compare"] is not None:
            results = _compare(run_dir, Path(config["compare"]))
            console.print(comparisons(results, here=run_dir, there=config["compare"]))
        tell_evaluation(config)
    return finished


def _sample(
    config: Mapping[str, Any],
    sets: Sequence[EvaluationSet],
    codec: Codec,
    run_dir: Path,
    device: Any,
    grader: RewardSuite,
) -> None:
    """Make the samples that are not there yet."""
    stores = {of_set.name: SampleStore(_file(run_dir, "samples", of_set.name)) for of_set in sets}
    missing = [of_set for of_set in sets if not stores[of_set.name].whole]
    if not missing:
        return
    with ExitStack() as ended:
        engine = build_sampler(config, device)
        ended.callback(close, engine)
        grader.start()
        for of_set in missing:
            make = partial(sample, engine, grader, codec=codec, sampling=of_set.sampling, seed=config["eval"]["seed"])
            prompts_a_part = max(1, config["save_every"] // of_set.sampling.group_size)
            with told_progress(of_set.name, len(of_set.prompts), "problems") as told:
                stores[of_set.name].fill(of_set.prompts, make, prompts_a_part=prompts_a_part, told=told)


def _grade_again(sets: Sequence[EvaluationSet], codec: Codec, run_dir: Path, grader: RewardSuite) -> None:
    """Grade what is stored; nothing is written unless all of it can be."""
    graded: list[tuple[SampleStore, list[Sample]]] = []
    for of_set in sets:
        store = SampleStore(_file(run_dir, "samples", of_set.name))
        if not store.whole:
            raise ConfigError(
                f"rescore=true: {store.file} is not there; let the evaluation sample first, without rescore"
            )
        graded.append((store, grade_again(grader, of_set.prompts, store.read(), codec.template)))
    for store, samples in graded:
        store.write(samples)


def _finish(
    config: Mapping[str, Any],
    sets: Sequence[EvaluationSet],
    run_dir: Path,
    classes: CalculatedClasses,
    *,
    seconds: float,
) -> dict[str, Any]:
    """Numbers, results problem by problem, and the summary."""
    facts: dict[str, Any] = {}
    after: dict[str, float] = {}
    tokens = 0
    for of_set in sets:
        samples = SampleStore(_file(run_dir, "samples", of_set.name)).read()
        write_jsonl(_file(run_dir, "problems", of_set.name), problems_of(of_set.prompts, samples, classes))
        numbers = numbers_of(of_set.prompts, samples, ks=config["eval"]["ks"], classes=classes)
        after |= {f"eval/{of_set.name}/{name}": value for name, value in numbers.items()}
        facts[of_set.name] = {"problems": len(of_set.prompts), **of_set.sampling.plain()}
        tokens += sum(one.tokens for one in samples)
    summary = {
        "model": config["model"]["name"],
        "path": config["model"]["path"],
        "template": config["template"]["name"],
        "rescored": config["rescore"],
        "seconds": round(seconds, 2),
        "tokens": tokens,
        "sets": facts,
        "after": after,
        **provenance(),
    }
    keep_config(run_dir, config)  # graded anew, its sets may be others
    write_summary(run_dir, summary)
    add_evaluation(config["model"]["path"], summary)
    return summary


def _log(log: Any, summary: Mapping[str, Any], run_dir: Path) -> None:
    """Numbers, scores set by set, and some samples of each."""
    log.start_at(0)
    log.log_metrics(summary["after"], step=0)
    log.grow_table("scores", *score_table(summary), step=0)
    for name in summary["sets"]:
        samples = SampleStore(_file(run_dir, "samples", name)).read()
        log.grow_table(f"eval/{name}/samples", *sample_table(samples, _LOGGED_SAMPLES), step=0)


def _file(run_dir: Path, what: str, name: str) -> Path:
    return run_dir / what / f"{name}.jsonl"


def _compare(here: Path, there: Path) -> dict[str, Comparison]:
    """Another evaluation beside this one, over the sets that both have.

    Raises:
        ConfigError: if there is no other evaluation, or not of the same problems.
    """
    names = [file.stem for file in sorted((here / "problems").glob("*.jsonl"))]
    common = [name for name in names if _file(there, "problems", name).is_file()]
    if not common:
        raise ConfigError(f"compare={there}: it has none of the sets {', '.join(names)}")
    results = {}
    for name in common:
        first, second = (
            {problem["prompt_id"]: problem["correct"] for problem in read_jsonl(_file(folder, "problems", name))}
            for folder in (there, here)
        )
        try:
            results[name] = compare(first, second)
        except ValueError as error:
            raise ConfigError(f"compare={there}: of {name}, {error}") from error
    return results
