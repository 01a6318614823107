"""Folders of runs that nobody has trained: numbers, rollouts and evaluations as a run leaves them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from lightning_r1.callbacks.csv_log import MetricsCSV
from lightning_r1.text.records import write_jsonl


def log(run_dir: Path, *rows: dict[str, float]) -> None:
    """A ``metrics.csv`` with these rows; ``step`` is one of the numbers."""
    metrics = MetricsCSV(run_dir / "metrics.csv")
    metrics.start_at(0)
    for row in rows:
        metrics.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))


def record(text: str, reward: float | None, *, prompt: str = "2+2=", step: int = 1, **more: Any) -> dict[str, Any]:
    """A line of a rollout."""
    return {
        "step": step, "prompt_id": prompt, "prompt": prompt, "domain": "reasoning", "completion": text,
        "rewards": {"accuracy": reward}, "outcomes": {"accuracy": "ok"}, "reward": reward, "advantage": 0.5,
        "finish_reason": "stop", "tokens": len(text), "policy_version": step - 1, **more,
    }  # fmt: skip


def sample(prompt: str, text: str, right: bool) -> dict[str, Any]:
    """A line of an evaluation."""
    return {"prompt_id": prompt, "prompt": prompt, "completion": text, "answer": "4", "correct": right,
            "outcome": "ok", "finish_reason": "stop", "tokens": 3}  # fmt: skip


def leave_run(run_dir: Path, *, steps: int = 4, finished: bool = True, **config: Any) -> Path:
    """A run of RL: a rollout of two groups of two each step, evaluated before and after."""
    run_dir.mkdir(parents=True)
    settings = {"name": run_dir.name, "phase": {"name": "r1_zero"}, "model": {"name": "mini"},
                "algo": {"sampling": {"group_size": 2}}, "trainer": {"max_steps": steps if finished else 2 * steps},
                **config}  # fmt: skip
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))
    name = "eval/easy/pass@1"
    first, last = ({name: value, f"{name}_low": value - 0.2, f"{name}_high": value + 0.2} for value in (0.25, 0.75))
    middle = [
        {"step": step, "rollout/reward_mean": step / steps, "rollout/reward/accuracy": step / steps,
         "rollout/think_length_mean": 20.0 + step, "policy/entropy": 1.5 - step / steps, "time/rollout_s": 0.5,
         "time/update_s": 0.25, "memory/peak_gib": 1.0, "progress/rollouts": step, "a/number": math.sin(step)}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    log(run_dir, {"step": 0, **first}, *middle, *([{"step": steps, **last}] if finished else []))
    for step in range(1, steps + 1):
        records = [record(f"<think>{prompt} {i}</think> {i}", float(i), prompt=prompt, step=step, advantage=i - 0.5)
                   for prompt in ("2+2=", "3+3=") for i in range(2)]  # fmt: skip
        write_jsonl(run_dir / "rollouts" / f"{step:05d}.jsonl", records)
    for step, right in ((0, 1), (steps, 3)) if finished else ((0, 1),):
        samples = [sample(f"{i}?", f"<think>hm</think> at step {step}", i < right) for i in range(4)]
        write_jsonl(run_dir / "evaluations" / f"easy-{step:05d}.jsonl", samples)
    if finished:
        summary = {"phase": "r1_zero", "model": "mini", "steps": steps, "seconds": 152.8, "tokens": 1000,
                   "tokens_per_second": 6.5, "after": last, "commit": "abc", "versions": {"torch": "2"}}  # fmt: skip
        (run_dir / "summary.json").write_text(json.dumps(summary))
    return run_dir


def leave_pipeline(folder: Path, *, kept: bool = True) -> Path:
    """A pipeline of a base, RL from it, and traces of both, of which the last node has not begun."""
    nodes: dict[str, Any] = {
        "base": {"overrides": []},
        "rl": {"overrides": [], "inputs": {"model.path": "base/model"}},
        "traces": {"verb": "sample", "overrides": [], "inputs": {"model.path": "rl/model", "other.path": "base/model"}},
    }
    rows = {"what RL did": ["base", "rl", "traces"]}
    tables = {"columns": {"pass@1": "easy/pass@1"}, "compare": "easy", "rows": rows, "note": "of four problems"}
    for name in ("base", "rl"):
        leave_run(folder / name)
        parents = {
            path: {"node": source.split("/")[0], "key": "k"} for path, source in nodes[name].get("inputs", {}).items()
        }
        manifest = {"node": name, "key": "k", "status": "done", "seconds": 12.0, "parents": parents,
                    "command": f"python recipes/train.py name={name}", "commit": "abc", "versions": {}}  # fmt: skip
        (folder / name / "manifest.json").write_text(json.dumps(manifest))
    if kept:
        spec = {"name": "small", "nodes": nodes, "show": [], "tables": tables}
        (folder / "config.yaml").write_text(yaml.safe_dump({"name": "small", "pipeline": spec}))
    return folder
