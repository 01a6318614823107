"""``doctor`` takes what ``train`` takes: the same overrides give the same run."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.config.compose import CONF, compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures
from lightning_r1.doctor.cluster import cluster_of

SAID = {
    "model.path": "org/model",
    "teacher.path": "org/teacher",
    "data.folder": "lessons",
    "data.rows.path": "problems.jsonl",
    "reward.rewards.helpfulness.path": "org/helpful",
    "reward.rewards.harmlessness.path": "org/harmless",
    "data.sources.traces.path": "traces.jsonl",
    "data.sources.general.path": "general.jsonl",
    "trainer.max_steps": "10",
}
CHOICES = [
    *(("phase", file.stem) for file in sorted((CONF / "phase").glob("*.yaml"))),
    *(("experiment", file.stem) for file in sorted((CONF / "experiment").glob("mini_*.yaml"))),
    *(("experiment", name) for name in ("r1_zero_countdown", "distill_qwen_7b", "r1_7b/r1_zero")),
]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_the_doctor_examines_the_run_that_would_be_trained(group: str, choice: str) -> None:
    said = [f"{group}={choice}", "seed=3", "trainer.devices=8"]
    if group == "experiment" and choice == "mini_sft":
        said.append("phase=cold_start_sft")
    if group == "experiment" and choice == "mini_kd":
        said.append("phase=distill_kd")
    while True:
        try:
            examined: dict[str, Any] = compose_config("doctor", said)
            break
        except ConfigError as error:
            key = str(error).split(" is not set")[0]
            if key not in SAID:
                raise
            said.append(f"{key}={SAID[key]}")
    check_signatures(examined)
    options = examined.pop("doctor")
    assert options["engine"] is True
    assert examined == compose_config("train", said)


@pytest.mark.parametrize("gpu", sorted(file.stem for file in (CONF / "gpu").glob("*.yaml")))
def test_every_device_can_be_estimated_for(gpu: str) -> None:
    options = compose_config("doctor", ["experiment=r1_zero_countdown", f"gpu={gpu}"])["doctor"]
    cluster = cluster_of(options, 8)
    assert (cluster is None) is (gpu == "here")
    if cluster:
        assert (cluster.gpus, options["gpu"]) == (8, gpu)
        assert cluster.tflops > 0
