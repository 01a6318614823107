"""A vLLM that starts quickly on a CPU, and runs of the miniature's shape in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.models import tiny_policy
from helpers.quick import overrides_of
from helpers.runs import coin_base, coin_rl
from lightning_r1.config.compose import compose_config
from lightning_r1.models.policy import Policy
from lightning_r1.train import train

# float32 has 1e-6 of rounding; one step of the miniature moves log-probabilities by 1e-2
QUICK = {"kv_cache_gib": 0.25, "enforce_eager": True, "max_num_seqs": 64, "parity_tolerance": 1e-3}


def served_policy(seed: int = 0) -> Policy:
    """Qwen3's architecture, tied embeddings, a vocabulary that vLLM has to pad; heads of a width that it has."""
    return tiny_policy("qwen3", seed=seed, head_dim=32, tie_word_embeddings=True, initializer_range=0.1)


def served_base(output: Path) -> Path:
    """A base that knows the coin task by half, of a shape that vLLM has: a few seconds."""
    wider = ["model.architecture.head_dim=32", "trainer.max_steps=400"]
    train(compose_config("train", [*overrides_of(coin_base, output), *wider]))
    return output / "coin" / "base" / "model"


def vllm_rl(output: Path, base: Path, *overrides: str, server: str | None = None) -> dict[str, Any]:
    """Config of four steps of GRPO on the coin task that sample with vLLM.

    Args:
        output: of the run.
        base: to start from.
        overrides: besides.
        server: address of a vLLM server; without one vLLM is started beside the trainer.
    """
    if server:
        engine = ["rollout=vllm_server", f"rollout.base_url={server}", "rollout.parity_tolerance=1e-3"]
    else:
        engine = ["rollout=vllm", *(f"rollout.{name}={value}" for name, value in QUICK.items())]
    return coin_rl(
        output, base, *engine, "algo.sampler_correction=truncate", "trainer.max_steps=4",
        "+eval.sets.operators.size=8", *overrides,
    )  # fmt: skip
