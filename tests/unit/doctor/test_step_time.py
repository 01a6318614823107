"""Seconds by hand: a model of round numbers, on devices of round speeds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_r1.config.compose import compose_config
from lightning_r1.doctor.case import Batch, Case, Settings
from lightning_r1.doctor.cluster import Cluster, cluster_of
from lightning_r1.doctor.search import fastest, fits, fitting, option
from lightning_r1.doctor.step_time import arithmetic, server_devices, step_time
from lightning_r1.models.footprint import ModelSize

CONFIG: Any = SimpleNamespace(
    vocab_size=100, hidden_size=10, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=5,
    tie_word_embeddings=False,
)  # fmt: skip
CONFIG.get_text_config = lambda decoder: CONFIG
BODY, HEAD = 3000, 1000
SIZE = ModelSize(
    parameters=BODY + 2 * HEAD, weights=2 * 5000, layer=3000, outside=4000, states={32: 20000, 8: 10500}, low=10000,
    trained=10000, matrices=((10, 10, 30),),
)  # fmt: skip
CLUSTER = Cluster(
    gpu="abacus", gpus=1, gpus_per_node=2, tflops=1e-6, bandwidth_gb_s=1e-5, link_gb_s=1e-5, network_gb_s=5e-6,
    host_gb_s=2e-6, mfu=0.5, decoding=0.5, links=0.5, overlap=0.5, rewards_per_s=4,
)  # fmt: skip
BATCH = Batch(rows=4, updates=2, prompt=6, completion=10, group_size=2, sampled=8, scorings=1)
NOW = Settings(micro_batch_tokens=32, masters=True, max_rows=4)


def case(**more: Any) -> Case:
    """One whose updates need 100 bytes a token, a tenth of it with checkpointing."""
    return Case(
        **{
            "config": CONFIG, "size": SIZE, "dtype": torch.bfloat16, "batch": BATCH,
            "rollout": lambda rows: 400 * rows,
            "peak": lambda config, work, **how: (10 if how["checkpointing"] else 100) * work.tokens, **more,
        }
    )  # fmt: skip


def test_a_step_by_hand() -> None:
    found = step_time(case(), NOW, CLUSTER, memory=10**6)
    # layers on 4 rows of 16 tokens, the head on 10 of each; attention of 2 layers, 10 wide, over pairs
    forward = 4 * (2 * BODY * 16 + 2 * HEAD * 10 + 4 * 2 * 10 * (6 * 6 / 2 + 10 * (6 + 5)))
    assert found.update == pytest.approx(2 * 3 * forward / (1e6 * 0.5))
    assert found.scoring == pytest.approx(found.update / 3)
    # two batches of 4 rows, 10 tokens each: weights without the embedding, and 20 numbers a token, half of them there
    read = 2 * (BODY + HEAD) + 4 * 2 * 20 * (6 + 5)
    operations = 2 * (BODY + HEAD) * 4
    prefill = 4 * (2 * BODY * 6 + 4 * 2 * 10 * 6 * 6 / 2)  # each group's prompt once
    assert found.rollout == pytest.approx(20 * max(read / 5e3, operations / 5e5) + prefill / 5e5)
    assert found.rewards == 2
    assert found.exchange == found.sync == 0
    assert found.total == pytest.approx(found.rollout + found.rewards + found.update + found.scoring)
    again = step_time(case(), replace(NOW, checkpointing=True), CLUSTER, memory=10**6)
    assert again.update == pytest.approx(found.update * 4 / 3)
    adapted = step_time(case(), replace(NOW, adapter="lora"), CLUSTER, memory=10**6)
    assert adapted.update == pytest.approx(found.update * 2 / 3)


def test_what_ranks_exchange_by_hand() -> None:
    two, cluster = case(gpus=2), replace(CLUSTER, gpus=2)
    alone = step_time(two, replace(NOW, sharing="single"), cluster, memory=10**6)
    # gradients in bfloat16 are added up in float32, so that each micro-batch's are reduced; a rank has one of 2 rows
    ring = 1 / 2 / (1e4 * 0.5)
    whole = 2 * 2 * SIZE.weights * ring
    copied = step_time(two, replace(NOW, sharing="ddp"), cluster, memory=10**6)
    assert copied.exchange == pytest.approx(whole - 0.5 * min(whole, alone.update))
    # shards in float32: gathered twice in half the bytes, reduced in all
    moved = 2 * (2 * SIZE.weights + 2 * SIZE.weights) * ring
    mixed = replace(NOW, sharing="fsdp", mixed=True)
    sharded = step_time(two, mixed, cluster, memory=10**6)
    assert sharded.exchange == pytest.approx(moved - 0.5 * min(moved, alone.update))
    assert sharded.sync == pytest.approx(SIZE.weights / 5e3)
    slower = step_time(case(gpus=4), mixed, replace(cluster, gpus=4), memory=10**6)
    assert slower.sync == pytest.approx(SIZE.weights / 2.5e3)  # over the network of nodes


def test_a_server_has_half_of_the_devices_and_as_many_rows_as_its_cache_holds() -> None:
    of, memory = case(gpus=4), 15_000
    served = replace(NOW, sampler="server", sharing="ddp")
    assert of.ranks(served) == 2
    assert server_devices(of, memory, 2) == [2]  # one holds 10,000 bytes of weights in 8,100
    found = step_time(of, served, replace(CLUSTER, gpus=4), memory=memory)
    rows = int((0.9 * 15_000 * 2 - 10_000) // (2 * 20 * 16))
    assert rows > 8  # all of them at once
    read = 2 * (BODY + HEAD) + 8 * 2 * 20 * (6 + 5)
    prefill = 4 * (2 * BODY * 6 + 4 * 2 * 10 * 6 * 6 / 2)
    decode = 10 * max(read / (2 * 5e3), 2 * (BODY + HEAD) * 8 / (2 * 5e5))
    assert found.rollout == pytest.approx(decode + prefill / (2 * 5e5))
    assert of.footprint(served).rollout == 0


def test_what_a_device_holds_under_settings() -> None:
    one = case().footprint(NOW)
    assert (one.weights, one.gradients, one.optimizer) == (10000, 10000 + 20000, 20000 + 40000)
    assert one.activations == 100 * 32
    assert case().footprint(replace(NOW, bits=8)).optimizer == 20000 + 10500
    mixed = case(gpus=2).footprint(replace(NOW, sharing="fsdp", mixed=True))
    assert (mixed.weights, mixed.gradients, mixed.optimizer) == (10000, 10000, 20000)  # 4 + 4 + 8 bytes, over two
    assert mixed.rollout == 400 * 4 + 10000
    hosted = replace(NOW, sharing="fsdp", mixed=True, cpu_offload=True)
    assert case(gpus=2).footprint(hosted).standing == 0
    assert case(gpus=2).host(hosted) == mixed.standing
    kept = replace(NOW, checkpointing="offload")
    assert case().host(kept) == 2 * 32 * 10 * 2
    assert case().footprint(kept).activations == 10 * 32  # of two layers, both are on the device
    shared = case(arrangement="shared prefix").work(NOW)
    assert (shared.rows, shared.tokens) == (2, 6 + 2 * 10)
    assert case().work(NOW).rows == 2
    assert case().micro_batches(NOW) == 2


def test_the_search_is_as_good_as_trying_everything() -> None:
    of = case(gpus=4, rollout=lambda rows: 100 * rows)
    now, cluster = replace(NOW, sharing="ddp", micro_batch_tokens=64), replace(CLUSTER, gpus=4)
    for memory in (12_000, 24_000, 40_000, 80_000, 10**6):
        found = fitting(of, now, cluster, memory)
        for one in found:
            assert fits(one, memory) == "yes"
            assert one.needs == of.footprint(one.settings)
            assert one.time == step_time(of, one.settings, cluster, memory=memory)
        assert [one.cost for one in found] == sorted(one.cost for one in found)
        best = fastest(of, now, cluster, memory)
        assert (best is None) == (not found)
        if best:
            assert best.cost <= found[0].cost
    assert [one.changes for one in found] == [()]  # with room for all, nothing has to change
    assert fits(option(of, now, cluster, 12_000), 12_000) == "no"


def test_options_are_the_words_that_a_person_types() -> None:
    now = replace(NOW, sharing="ddp", micro_batch_tokens=64)
    found = fitting(case(gpus=4), now, None, 30_000)
    said = {change for one in found for change in one.changes}
    assert {"parallel=fsdp", "model.dtype=float32", "parallel.mixed_precision=bf16"} <= said
    assert said <= {
        "parallel=fsdp", "model.dtype=float32", "parallel.mixed_precision=bf16", "parallel.cpu_offload=true",
        "optim=adamw8bit", "model.activation_checkpointing=true", "model.activation_checkpointing=offload",
        "model.adapter=lora", "model.adapter=qlora", "rollout=vllm_server", "phase.module.micro_batch_tokens=16",
    }  # fmt: skip
    assert not any("model.adapter=qlora" in one.changes and "parallel=fsdp" in one.changes for one in found)


def test_every_device_is_described() -> None:
    for gpu in ("h100", "h200", "a100", "l40s", "rtx4090", "cpu"):
        options = compose_config("doctor", [f"gpu={gpu}", "model.path=a", "data.rows.path=b", "trainer.max_steps=1"])
        cluster = cluster_of(options["doctor"], 16)
        assert cluster
        assert cluster.gpu == gpu
        assert cluster.told().startswith(f"16 x {gpu}: ")
    nothing = compose_config("doctor", ["model.path=a", "data.rows.path=b", "trainer.max_steps=1"])["doctor"]
    assert cluster_of(nothing, 1) is None
    unlinked = cluster_of({**nothing, "tflops": 1.0, "bandwidth_gb_s": 2.0}, 1)
    assert unlinked
    assert unlinked.link_gb_s == 2.0
    assert arithmetic(case()).cache == 20
