"""What a person is told when work has ended: what was reached, where everything is, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import show_end
from lightning_r1.config.conf_dir import choices
from lightning_r1.config.leaving import command, same_command
from lightning_r1.config.reading import get
from lightning_r1.config.run_folder import SUMMARY

_MOST_SETS = 3
_LATER = {
    "pretrain": ("train", "phase=r1_zero"),
    "r1_zero": ("sample", "sample=cold_start"),
    "cold_start_sft": ("train", "phase=reasoning_rl"),
    "reasoning_rl": ("sample", "sample=rejection_sampling"),
    "rejection_sft": ("train", "phase=all_scenarios_rl"),
}
"""What comes behind a phase in the paper."""


def tell_training(config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """The end of a training run, also of one that was finished before.

    Args:
        config: resolved.
        summary: what the run's ``summary.json`` holds.
    """
    run_dir = Path(config["paths"]["run_dir"])
    rows = [*_scores(summary), ("model", str(run_dir / "model"))]
    if (run_dir / "report.html").is_file():
        rows.append(("report", str(run_dir / "report.html")))
    if (run_dir / "rollouts").is_dir():
        rows.append(("completions", f"{run_dir / 'rollouts'}, held-out ones in {run_dir / 'evaluations'}"))
    rows.append(("numbers", f"{run_dir / SUMMARY}, {run_dir / 'metrics.csv'}"))
    if offline := sorted((run_dir / "wandb").glob("offline-run-*")):
        rows.append(("W&B", f"offline; to upload it: wandb sync {offline[-1]}"))
    title = f"{config['name']} is finished: {summary['steps']:,} steps in {_duration(summary['seconds'])}"
    show_end(title, rows, _after_training(config, run_dir / "model"))


def tell_evaluation(config: Mapping[str, Any]) -> None:
    """The end of an evaluation, below its table."""
    run_dir = Path(config["paths"]["run_dir"])
    rows = [
        ("samples", f"{run_dir / 'samples'}, what was right in {run_dir / 'problems'}"),
        ("numbers", str(run_dir / SUMMARY)),
    ]
    then = [] if config["compare"] else [f"{same_command()} compare=OTHER    (another evaluation's folder)"]
    show_end(f"{config['name']} is finished", rows, [*then, command("serve", f"model.path={config['model']['path']}")])


def tell_sampling(config: Mapping[str, Any], file: Path, summary: Mapping[str, Any]) -> None:
    """The end of a sampling job, below its table."""
    if "traces" in summary:
        general = ["data.sources.general.path=..."] if config["sample"]["name"] == "rejection_sampling" else []
        phase = "phase=rejection_sft" if general else "phase=cold_start_sft"
        kept, then = "traces", command("train", phase, f"data.sources.traces.path={file}", *general, "model=...")
    else:
        kept, then = "pairs", command("train", "phase=reward_model", f"data.rows.path={file}", "model.path=...")
    show_end(
        f"{config['name']} is finished: {summary[kept]:,} {kept}",
        [(kept, str(file)), ("numbers", str(file.with_name(SUMMARY)))],
        [then],
    )


def tell_teaching(config: Mapping[str, Any], lessons: Path, summary: Mapping[str, Any]) -> None:
    """The end of a teacher's job."""
    show_end(
        f"{config['name']} is finished: {summary['lessons']:,} lessons of {summary['tokens']:,} tokens",
        [("lessons", str(lessons)), ("numbers", str(lessons.with_name(SUMMARY)))],
        [command("train", "phase=distill_kd", f"data.folder={lessons}", "model=...")],
    )


def tell_export(config: Mapping[str, Any], folder: Path, step: int) -> None:
    """The end of an export."""
    show_end(f"exported: step {step:,}", [("model", str(folder))], _uses(config, folder))


def tell_pipeline(folder: Path, results: Mapping[str, Mapping[str, Any]], shown: Sequence[str] = ()) -> None:
    """The end of a pipeline, below its tables; proposed is the last model of those that are shown."""
    paths = {name: Path(result["path"]) / "model" for name, result in results.items()}
    models = {name: path for name, path in paths.items() if path.is_dir()}
    of_interest = [models[name] for name in shown if name in models] or list(models.values())
    rows = [("models", f"{len(models)}, in {folder}/<node>/model")] if models else []
    if (report := folder / "report.html").is_file():
        rows.append(("report", str(report)))
    rows.append(("numbers", str(folder / SUMMARY)))
    then = [command("serve", f"model.path={of_interest[-1]}")] if models else []
    show_end(f"finished: {len(results)} nodes", rows, then)


def _after_training(config: Mapping[str, Any], model: Path) -> list[str]:
    if get(config, "phase.kind") == "reward_model":
        reward = f"reward.rewards.helpfulness.path={model}"
        return [command("train", "phase=all_scenarios_rl", "model.path=RUN/model", reward, "...")]
    then = _uses(config, model)
    if later := _LATER.get(config["phase"]["name"]):
        then.append(command(*later, f"model.path={model}", "..."))
    return then


def _uses(config: Mapping[str, Any], model: Path) -> list[str]:
    """Of a model that was trained: to see what it has learned, and to talk with it."""
    template = get(config, "template.name")
    as_trained = [f"template={template}"] if template in choices("template") and template != "r1_zero" else []
    sets = [name for name in get(config, "eval.sets") or {} if name in choices("eval")]
    evaluation = command("evaluate", f"eval={sets[0] if sets else '...'}", f"model.path={model}", *as_trained)
    return [evaluation, command("serve", f"model.path={model}")]


def _scores(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """pass@1 of each held-out set, before and after; other numbers where there is none."""
    before, after = summary.get("before") or {}, summary.get("after") or {}
    names = [key.split("/")[1] for key in after if key.endswith("/pass@1")]
    rows = [(name, f"pass@1 {_change(before, after, f'eval/{name}/pass@1')}") for name in names[:_MOST_SETS]]
    if len(names) > _MOST_SETS:
        rows.append(("", f"and {len(names) - _MOST_SETS} more sets in {SUMMARY}"))
    if not names:
        shown = [key for key in after if isinstance(after[key], float)][:_MOST_SETS]
        rows = [("held out", ", ".join(f"{key.rpartition('/')[2]} {_change(before, after, key)}" for key in shown))]
    return [row for row in rows if row[1]]


def _change(before: Mapping[str, float], after: Mapping[str, float], key: str) -> str:
    told = [_with_interval(numbers, key) for numbers in (before, after) if key in numbers]
    return " -> ".join(told)


def _with_interval(numbers: Mapping[str, float], key: str) -> str:
    low, high = numbers.get(f"{key}_low"), numbers.get(f"{key}_high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{numbers[key]:.3f}{interval}"


def _duration(seconds: float) -> str:
    """For people.

    >>> _duration(12.3), _duration(90), _duration(7200)
    ('12.3 s', '1.5 min', '2.0 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
