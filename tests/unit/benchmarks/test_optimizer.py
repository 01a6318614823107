"""The benchmark of optimizers counts what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_r1.benchmarks import optimizer
from lightning_r1.benchmarks.shapes import model_of
from lightning_r1.config.compose import compose_config
from lightning_r1.optim.adamw8bit import averages_bits
from lightning_r1.optim.blocks import state_bytes


def test_bytes_are_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "measure", optimizer.turn)  # no need to import all again
    said = ["~benchmark.shapes", "+benchmark.shapes={tiny: 1}", "benchmark.steps=1"]
    config = compose_config("benchmark", ["benchmark=optimizer", *said, f"paths.output_dir={tmp_path}"])["benchmark"]
    found = optimizer.benchmark(config)["shapes"]["tiny"]
    model = model_of("tiny", num_hidden_layers=1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    coded = {
        embeddings: sum(
            state_bytes(p.shape, averages_bits(name, p.shape, embeddings=embeddings))
            for name, p in model.named_parameters()
        )
        for embeddings in (32, 8)
    }
    assert {system: held["state_bytes"] for system, held in found.items()} == {
        "32 bits": 8 * parameters,
        "8 bits": coded[32],
        "8 bits, embeddings too": coded[8],
        "32 bits, bf16 + masters": 12 * parameters,
        "8 bits, bf16 + masters": coded[32] + 4 * parameters,
    }
    assert coded[8] < coded[32] < 8 * parameters
    assert all(held["seconds"] > 0 for held in found.values())
    told = capsys.readouterr().out
    assert "optimizer of tiny, 1 layers" in told
    assert all(word in told for word in ("32 bits", "embeddings", "masters", "8.00"))


def test_a_system_that_is_none_is_refused(tmp_path: Path) -> None:
    said = ["benchmark=optimizer", "benchmark.systems=[4 bits]", f"paths.output_dir={tmp_path}"]
    with pytest.raises(ValueError, match=r"benchmark\.systems='4 bits': expected of 32 bits, 8 bits, 8 bits, emb"):
        optimizer.benchmark(compose_config("benchmark", said)["benchmark"])
