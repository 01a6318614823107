"""The memory that an update or a rollout really takes on a CPU: run as a process of its own, it prints MiB.

    python -m helpers.peak '[{"what": "update", "config": {...}, "rows": 4, "prompt": 8, ...}]'

Large blocks are given back to the system at once (``MALLOC_MMAP_THRESHOLD_``), so that the process's own peak is that
of the tensors.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.prompts import mini_codec
from lightning_r1.models.layout import pack
from lightning_r1.models.policy import Policy
from lightning_r1.models.saving import checkpoint_activations
from lightning_r1.optim.adamw import adamw
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Prompt, Sampling


def measured_mib(cases: Sequence[Mapping[str, Any]], ranks: int = 1) -> list[float]:
    """What a process, or the first of several ranks, needed for each case above what it had before the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "helpers.peak", json.dumps(list(cases))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144", "OMP_NUM_THREADS": "1",
                 "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(ranks)},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, error) in zip(processes, told, strict=True):
        assert process.returncode == 0, error
    return [float(line) for line in told[0][0].split()]


def update(
    policy: Policy,
    *,
    rows: int,
    prompt: int,
    completion: int,
    micro_batches: int,
    arrangement: str = "padded",
    checkpointing: bool = False,
) -> None:
    """Two steps, each of some micro-batches in which every token of the completions counts."""
    checkpoint_activations(policy.model, checkpointing)
    optimizer = adamw(policy.train().named_parameters(), lr=1e-3)
    device = next(policy.parameters()).device
    ids = torch.randint(3, 100, (rows, prompt + completion), device=device)
    lengths = torch.full((rows,), prompt, device=device)
    mask = torch.ones(rows, completion, dtype=torch.bool, device=device)
    layout = None
    if arrangement != "padded":
        ids[1:, :prompt] = ids[0, :prompt]
        layout = pack([prompt] * rows, [completion] * rows, [0] * rows if arrangement == "shared prefix" else None)
        layout = layout.to(device)
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(micro_batches):
            policy(ids, lengths, mask, layout=layout).logprobs.sum().backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


def rollout(policy: Policy, *, prompts: int, group_size: int, prompt_tokens: int, new_tokens: int) -> None:
    """Groups that run to the limit: nothing stops them."""
    codec = mini_codec()
    codec.stop_ids = (10**6,)
    asked = [Prompt(str(place), "", "", tuple(range(10, 10 + prompt_tokens)), {}) for place in range(prompts)]
    engine = GroupEngine(policy, codec, max_rows=prompts * group_size)
    engine.generate(asked, Sampling(group_size=group_size, max_new_tokens=new_tokens), seeds=range(prompts))


def sharded(policy: Policy, **shape: Any) -> None:
    """The update of one of several ranks that share the weights, layer by layer (FSDP2)."""
    for layer in policy.model.model.layers:
        fully_shard(layer)
    fully_shard(policy)
    update(policy, **shape)


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(what: str, config: Mapping[str, Any], **shape: Any) -> float:
    """MiB of one case."""
    fields = dict(config)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier cases left is given back
    before = _status("VmRSS")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    {"update": update, "rollout": rollout, "sharded": sharded}[what](Policy(model), **shape)
    return _status("VmHWM") - before


def main(cases: Sequence[dict[str, Any]]) -> None:
    """Each case, after a small one of its kind, which loads what is loaded on first use."""
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        torch.distributed.init_process_group("gloo")
    for case in cases:
        measure(**{**case, **_least(case)})
        sys.stdout.write(f"{measure(**case):.3f}\n")


def _least(case: Mapping[str, Any]) -> dict[str, Any]:
    small = {"rows": 1, "prompt": 2, "completion": 6, "prompts": 1, "prompt_tokens": 4, "new_tokens": 4}
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "head_dim": 8, "vocab_size": 200}
    return {**{name: small[name] for name in case if name in small}, "config": {**case["config"], **tiny}}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
