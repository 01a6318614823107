"""Adapters through the real recipe: they learn, go on to the same bits, and many ranks train them as one does."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from helpers.coin import coin_rows
from helpers.quick import overrides_of, random_base
from helpers.runs import coin_rl, coin_sft, largest_difference, weights
from integration.test_ddp import recipe
from lightning_r1.config.compose import compose_config
from lightning_r1.data.traces import write_traces
from lightning_r1.export import export
from lightning_r1.train import train
from lightning_r1.types import Trace

PASS = "eval/operators/pass@1"
STEPS, CUT = 5, 3
ADAPTER = ["adapter.rank=8", "adapter.alpha=16", "optim.lr=1e-2"]
# a rollout is two steps, and the reference is refreshed before the third of them
WORK = [
    "+reward.rewards.length={_target_: helpers.coin.short_is_good}",
    "algo.num_iterations=2",
    "algo.kl_coef=0.05",
    "algo.reference_refresh_steps=4",
    "adapter.rank=4",
    "callbacks.checkpoint.every_n_steps=1",
    f"callbacks.checkpoint.keep={STEPS}",
    f"trainer.max_steps={STEPS}",
    "+eval.sets.operators.size=4",
]


def adapter_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "adapter" / "adapter_model.safetensors")


def cut(run_dir: Path, at: int) -> None:
    """As if the run had been killed after so many steps."""
    for name in ("model", "adapter"):
        shutil.rmtree(run_dir / name)
    (run_dir / "summary.json").unlink()
    for place in (run_dir / "checkpoints").iterdir():
        if int(place.name.split("-")[1].split(".")[0]) > at:
            shutil.rmtree(place) if place.is_dir() else place.unlink()


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_accuracy_rises_from_one_half_to_nearly_one(kind: str, base_model: Path, tmp_path: Path) -> None:
    said = [f"model.adapter={kind}", *ADAPTER, "algo.kl_coef=0.001", "+eval.sets.operators.size=40"]
    summary = train(coin_rl(tmp_path, base_model, *said, "trainer.max_steps=40"))
    assert 0.25 < summary["before"][PASS] < 0.65
    assert summary["after"][PASS] > 0.85


def test_sft_lowers_its_loss_and_leaves_the_base(base_model: Path, tmp_path: Path) -> None:
    traces = [
        Trace(row.id, row.question, f"<think>{row.answer['value']}</think><answer>{row.answer['value']}</answer>")
        for row in coin_rows("train", size=30)
    ]
    write_traces(tmp_path / "traces.jsonl", traces)
    said = [*ADAPTER, "model.adapter=lora", "+eval.sets.operators.size=4", "trainer.max_steps=-1", "data.epochs=4"]
    train(coin_sft(tmp_path, base_model, tmp_path / "traces.jsonl", *said))
    with (tmp_path / "coin/sft/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < 0.6 * losses[0]
    changed = {
        name for name, weight in load_file(base_model / "model.safetensors").items()
        if not torch.equal(weight, weights(tmp_path / "coin/sft")[name])
    }  # fmt: skip
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)


def test_a_run_goes_on_to_the_same_bits_on_its_base_alone(tmp_path: Path) -> None:
    base = random_base(tmp_path / "base")

    def config(name: str) -> dict[str, Any]:
        return coin_rl(tmp_path, base, "model.adapter=qlora", *WORK, f"name={name}", "algo.prompts_per_rollout=2")

    train(config("whole"))
    train(config("killed"))
    cut(tmp_path / "killed", CUT)
    train(config("killed"))
    assert largest_difference(adapter_of(tmp_path / "whole"), adapter_of(tmp_path / "killed")) == 0
    assert largest_difference(weights(tmp_path / "whole"), weights(tmp_path / "killed")) == 0

    cut(tmp_path / "whole", STEPS)  # not finished: its last checkpoint is all there is
    last = export(compose_config("export", [f"run={tmp_path / 'whole'}"])).parent
    assert last.name == f"step-{STEPS:07d}"
    assert largest_difference(adapter_of(last), adapter_of(tmp_path / "killed")) == 0
    assert largest_difference(weights(last), weights(tmp_path / "killed")) == 0

    cut(tmp_path / "killed", CUT)
    moved = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        moved.lm_head.weight += 1e-3
    moved.save_pretrained(base)
    with pytest.raises(ValueError, match=r"model\.path=.*: the checkpoint's adapter stands on another base"):
        train(config("killed"))
    with pytest.raises(ValueError, match=r"model\.path=.*: the checkpoint's adapter stands on another base"):
        export(compose_config("export", [f"run={tmp_path / 'killed'}"]))
    assert not list((tmp_path / "killed").glob("step-*"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_it_as_one(parallel: str, tmp_path: Path) -> None:
    base = random_base(tmp_path / "base")
    said = ["model.adapter=lora", *WORK, "phase.module.micro_batch_tokens=100", "algo.prompts_per_rollout=4"]
    train(coin_rl(tmp_path / "one", base, *said))
    ranks = [f"parallel={parallel}", "trainer.accelerator=cpu", "trainer.devices=2"]
    recipe(overrides_of(coin_rl, tmp_path / "two", base, *said, *ranks))
    one, two = tmp_path / "one/coin/rl", tmp_path / "two/coin/rl"
    assert max(float(value.abs().max()) for value in adapter_of(one).values()) > 1e-3
    assert largest_difference(adapter_of(one), adapter_of(two)) < 1e-6
    assert largest_difference(weights(one), weights(two)) < 1e-6
    told = json.loads((two / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(base)
