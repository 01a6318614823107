"""What has to be said with a change of settings, so that the command is accepted and changes nothing else."""

from __future__ import annotations

import torch

from lightning_r1.doctor.patient import Patient


def besides(patient: Patient) -> dict[str, list[str]]:
    """Overrides that a change needs in this run, by the change."""
    config, trainer = patient.config, patient.config["trainer"]
    plain = ["model.compile=false"] if config["model"].get("compile") else []
    coarse = patient.hollow.model.dtype != torch.float32 and trainer["precision"] != "32-true"
    corrected = patient.kind != "rl" or config["algo"]["sampler_correction"] != "none"
    halved = "devices" if trainer["devices"] > 1 else "num_nodes"
    return {
        "parallel=fsdp": [*plain, *(["trainer.precision=32-true"] if coarse else [])],
        "model.activation_checkpointing=true": plain,
        "model.activation_checkpointing=offload": plain,
        "optim=adamw8bit": [f"optim.lr={config['optim']['lr']}"],  # a file of optim has a learning rate of its own
        "rollout=vllm_server": [
            *([] if corrected else ["algo.sampler_correction=truncate"]),
            f"trainer.{halved}={max(1, trainer[halved] // 2)}",
        ],
    }
