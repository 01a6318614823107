"""Sizes on paper: the published numbers of parameters, and a table of what fits."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.benchmarks import scale_on_paper
from lightning_r1.config.compose import compose_config

PUBLISHED = {
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "llama3_3_70b": 70_553_706_496,
}


def config(*said: str) -> dict[str, Any]:
    composed: dict[str, Any] = compose_config("benchmark", ["benchmark=scale_on_paper", *said])["benchmark"]
    return composed


def test_shapes_have_as_many_parameters_as_the_published_models() -> None:
    assert list(PUBLISHED) == config()["shapes"]
    assert {shape: scale_on_paper._model(shape)[1].parameters for shape in PUBLISHED} == PUBLISHED


def test_a_table_tells_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    said = config(
        "benchmark.shapes=[small]", "benchmark.gpus=[1,8]", "benchmark.completion_tokens=[1024]",
        "~benchmark.devices.h200", "benchmark.max_rows=[64,16]",
    )  # fmt: skip
    result = scale_on_paper.benchmark(said)
    one, eight = (result["found"]["h100"]["small"][gpus]["1024"] for gpus in ("1", "8"))
    assert 0 < one["gib"] < 79.6
    assert eight["hours"] < one["hours"] < 9 * eight["hours"]
    assert one["hours"] == pytest.approx(one["step_s"] * 1000 / 3600)
    lines = result["markdown"].splitlines()
    assert lines[0].startswith("H100, 79.6 GiB each; assumes 989 TFLOPS at 40% MFU")
    assert lines[2] == "| model | GPUs | 1k: settings | GiB | h / 1,000 steps |"
    assert lines[4].startswith("| small (0.0B) | 1 | as it is |")
    assert all(line.count("|") == 6 for line in lines[2:])
    assert result["markdown"] in capsys.readouterr().out
    tiny = dict(said, devices={"h100": {**said["devices"]["h100"], "memory_gib": 1e-3}})
    assert scale_on_paper.benchmark(tiny)["found"]["h100"]["small"]["1"]["1024"] is None
