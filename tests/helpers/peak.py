"""The memory that an update or a rollout really takes on a CPU: run as a process of its own, it prints MiB.

    python -m helpers.peak '[{"what": "update", "config": {...}, "rows": 4, "length": 256, ...}]'

Large blocks are given back to the system at once (``MALLOC_MMAP_THRESHOLD_``), so that the process's own peak is that
of the tensors.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.prompts import mini_codec
from lightning_r1.models.policy import Policy
from lightning_r1.optim.adamw import adamw
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Prompt, Sampling


def measured_mib(cases: Sequence[Mapping[str, Any]]) -> list[float]:
    """What a process needed for each case above what it had before there was a model."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.peak", json.dumps(list(cases))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144", "OMP_NUM_THREADS": "1",
             "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return [float(line) for line in done.stdout.split()]


def update(policy: Policy, *, rows: int, length: int, checkpointing: bool, micro_batches: int) -> None:
    """Two steps, each of some micro-batches in which every token counts."""
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = adamw(policy.train().named_parameters(), lr=1e-3)
    ids = torch.randint(3, 100, (rows, length))
    prompt, mask = torch.ones(rows, dtype=torch.long), torch.ones(rows, length - 1, dtype=torch.bool)
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(micro_batches):
            policy(ids, prompt, mask).logprobs.sum().backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()


def rollout(policy: Policy, *, prompts: int, group_size: int, prompt_tokens: int, new_tokens: int) -> None:
    """Groups that run to the limit: nothing stops them."""
    codec = mini_codec()
    codec.stop_ids = (10**6,)
    asked = [Prompt(str(place), "", "", tuple(range(10, 10 + prompt_tokens)), {}) for place in range(prompts)]
    engine = GroupEngine(policy, codec, max_rows=prompts * group_size)
    engine.generate(asked, Sampling(group_size=group_size, max_new_tokens=new_tokens), seeds=range(prompts))


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
    {"update": update, "rollout": rollout}[what](Policy(model), **shape)
    return _status("VmHWM") - before


def main(cases: Sequence[dict[str, Any]]) -> None:
    """Each case, after a small one of its kind, which loads what is loaded on first use."""
    torch.set_num_threads(1)
    for case in cases:
        measure(**{**case, **_least(case)})
        sys.stdout.write(f"{measure(**case):.3f}\n")


def _least(case: Mapping[str, Any]) -> dict[str, Any]:
    small = {"rows": 1, "length": 8, "prompts": 1, "prompt_tokens": 4, "new_tokens": 4}
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "head_dim": 8, "vocab_size": 200}
    return {**{name: small[name] for name in case if name in small}, "config": {**case["config"], **tiny}}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
