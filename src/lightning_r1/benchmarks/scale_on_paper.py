"""What models of several sizes need and take on clusters of several sizes: arithmetic, nothing is run.

For each, the fastest combination of settings that fits (:func:`lightning_r1.doctor.search.fastest`), of those that
train all weights if there is one. Adapters are another training: they are what is left where nothing else fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lightning_r1.benchmarks.shapes import shape_config
from lightning_r1.callbacks.console import console
from lightning_r1.doctor.case import Batch, Case, Settings
from lightning_r1.doctor.cluster import cluster_of
from lightning_r1.doctor.search import Option, fastest
from lightning_r1.models.footprint import ModelSize, model_size
from lightning_r1.models.memory_estimate import deep_update_peak, rollout_peak, with_layers
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

# of changes that a person types, short words for a cell
_WORDS = {
    "model.activation_checkpointing=true": "checkpointing",
    "model.activation_checkpointing=offload": "offloaded checkpoints",
    "optim=adamw8bit": "8-bit",
    "parallel=fsdp": "fsdp",
    "parallel.cpu_offload=true": "states on the host",
    "model.adapter=lora": "lora",
    "model.adapter=qlora": "qlora",
    "rollout=vllm_server": "half of them serve",
}
_NOT_TOLD = ("model.dtype", "parallel.mixed_precision", "rollout.max_rows")


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate and print the tables.

    Args:
        config: ``conf/benchmark/scale_on_paper.yaml``, resolved.

    Returns:
        By device, shape, number of devices and completion tokens: settings, GiB and hours; and ``markdown``.
    """
    found: dict[str, Any] = {}
    text = []
    for device, options in config["devices"].items():
        found[device] = {
            shape: {
                str(gpus): {
                    str(tokens): told(cheapest(config, {**config["assumed"], **options}, shape, gpus, tokens), config)
                    for tokens in config["completion_tokens"]
                }
                for gpus in config["gpus"]
            }
            for shape in config["shapes"]
        }
        text.append(markdown(config, {**config["assumed"], **options}, found[device]))
    print_tables(text)
    return {"found": found, "markdown": "\n\n".join(text)}


def print_tables(text: list[str]) -> None:
    """As they stand in a page: no line is folded."""
    for one in text:
        console.print(one, soft_wrap=True, markup=False, highlight=False)
        console.print()


def cheapest(
    config: Mapping[str, Any], options: Mapping[str, Any], shape: str, gpus: int, tokens: int
) -> Option | None:
    """The fastest settings that fit; None if none do."""
    memory = int(options["memory_gib"] * 2**30)
    case = case_of(config, shape, gpus, tokens)
    cluster = cluster_of(options, gpus)
    assert cluster
    tried = []
    for rows in config["max_rows"]:
        now = Settings(
            micro_batch_tokens=config["prompt_tokens"] + tokens, masters=True, max_rows=rows,
            sharing="ddp" if gpus > 1 else "single",
        )  # fmt: skip
        tried.append(fastest(case, now, cluster, memory))
    return min((one for one in tried if one), key=lambda one: one.cost, default=None)


def case_of(config: Mapping[str, Any], shape: str, gpus: int, tokens: int) -> Case:
    """The paper's batch with completions of so many tokens."""
    rows = config["prompts"] * config["group_size"]
    model, size = _model(shape)
    return Case(
        config=model,
        size=size,
        dtype=torch.bfloat16,
        batch=Batch(
            rows=rows // config["minibatches"], updates=config["minibatches"], prompt=config["prompt_tokens"],
            completion=tokens, group_size=config["group_size"], sampled=rows, scorings=config["scorings"],
        ),
        gpus=gpus,
        rollout=lambda together: _rollout(
            shape, -(-min(together, rows // gpus) // config["group_size"]), config["group_size"],
            config["prompt_tokens"], tokens,
        ),
        arrangement="packed",
        peak=_activations,
    )  # fmt: skip


@cache
def _model(shape: str) -> tuple[PretrainedConfig, ModelSize]:
    config = shape_config(shape, attn_implementation="flash_attention_2")
    with torch.device("meta"):
        size = model_size(AutoModelForCausalLM.from_config(with_sdpa(config), dtype=torch.bfloat16))
    return config, size


def with_sdpa(config: PretrainedConfig) -> PretrainedConfig:
    """The same with an attention that can be built anywhere."""
    other = with_layers(config, config.num_hidden_layers)
    other._attn_implementation = "sdpa"
    return other


_KNOWN: dict[Any, int] = {}


def _activations(config: PretrainedConfig, work: Any, **how: Any) -> int:
    key = (config.hidden_size, config.num_hidden_layers, config.intermediate_size, work, how["checkpointing"])
    if key not in _KNOWN:
        _KNOWN[key] = deep_update_peak(config, work, **how)
    return _KNOWN[key]


@cache
def _rollout(shape: str, prompts: int, group_size: int, prompt: int, new: int) -> int:
    """Measured with one layer; every further one adds its cache."""
    config = _model(shape)[0]
    one = rollout_peak(
        with_layers(config, 1), prompts=max(1, prompts), group_size=group_size, prompt_tokens=prompt, new_tokens=new,
        sample=lambda logits: sample_tokens(logits, torch.zeros(len(logits)), Sampling()), dtype=torch.bfloat16,
    )  # fmt: skip
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_layer = 2 * config.num_key_value_heads * size * torch.bfloat16.itemsize * (prompt + new)
    return one + (config.num_hidden_layers - 1) * a_layer * max(1, prompts) * group_size


def told(one: Option | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Numbers of an option."""
    if one is None:
        return None
    assert one.time
    return {
        "overrides": list(one.changes),
        "settings": in_words(one),
        "gib": one.needs.peak / 2**30,
        "step_s": one.time.total / config["minibatches"],
        "hours": one.time.total / config["minibatches"] * config["steps"] / 3600,
    }


def in_words(one: Option) -> str:
    """Settings in a few words."""
    words = [_WORDS[change] for change in one.changes if not change.startswith(_NOT_TOLD)]
    return ", ".join(words) or ("ddp" if one.settings.sharing == "ddp" else "as it is")


def markdown(config: Mapping[str, Any], options: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """One device's table."""
    cluster = cluster_of(options, 1)
    assert cluster
    lengths = [f"{tokens // 1024}k" for tokens in config["completion_tokens"]]
    head = ["model", "GPUs"]
    for length in lengths:
        head += [f"{length}: settings", "GiB", f"h / {config['steps']:,} steps"]
    lines = [
        f"{options['gpu'].upper()}, {options['memory_gib']:g} GiB each; assumes {cluster.told().partition(': ')[2]}",
        "",
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' if 'settings' in one or one == 'model' else '---:' for one in head)}|",
    ]
    for shape, clusters in found.items():
        billions = _model(shape)[1].parameters / 1e9
        for gpus, cells in clusters.items():
            line = [f"{shape} ({billions:.1f}B)", gpus]
            for one in cells.values():
                line += ["does not fit", "", ""] if one is None else [one["settings"], *_numbers(one)]
            lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def _numbers(one: Mapping[str, Any]) -> list[str]:
    digits = 1 if one["hours"] < 10 else 0
    return [f"{one['gib']:.0f}", f"{one['hours']:,.{digits}f}"]
