"""The same small runs by one process and by ranks that share the weights: every phase, and several architectures.

``python -m helpers.sharded FOLDER`` is one rank: it makes the runs of ``FOLDER/runs.json``, one after the other.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from helpers.coin import coin_rows
from helpers.lessons import lessons_of, made_from, write_lessons
from helpers.models import tiny_policy
from helpers.preferences import write_pairs
from helpers.prompts import mini_codec
from helpers.quick import overrides_of
from helpers.runs import QUIET, coin_distill, coin_rl, coin_sft
from lightning_r1.config.compose import compose_config
from lightning_r1.data.traces import write_traces
from lightning_r1.models.export import export_model
from lightning_r1.train import train
from lightning_r1.types import Trace

_UNEVEN = {"initializer_range": 0.05, "intermediate_size": 49}  # a size that no number of ranks divides
_FAMILIES = {"qwen3": {"tie_word_embeddings": True}, "llama": {}, "gemma2": {"tie_word_embeddings": True}}
_COMMON = [
    *QUIET, "threads=1", "trainer.accelerator=cpu", "callbacks.checkpoint.every_n_steps=1000",
    "phase.module.max_grad_norm=0.01",  # every step is clipped
]  # fmt: skip
_REWARD = "+reward.rewards.length={_target_: helpers.coin.short_is_good}"


class Material:
    """Models with random weights (tied heads, an untied one, the caps of Gemma 2), and something to learn.

    Args:
        folder: of all of it.
    """

    def __init__(self, folder: Path) -> None:
        codec = mini_codec()
        self.folder = folder
        self.models = {
            family: export_model(tiny_policy(family, **_UNEVEN, **fields), codec, folder / family, card={})
            for family, fields in _FAMILIES.items()
        }
        teacher = tiny_policy("qwen3")
        (folder / "lessons").mkdir()
        self.lessons = write_lessons(folder / "lessons", lessons_of(teacher, codec), made_from(teacher, codec))
        self.pairs = write_pairs(folder / "pairs.jsonl", size=60)
        self.traces = folder / "traces.jsonl"
        rows = enumerate(coin_rows("train", size=14))
        answers = [(row, row.answer["value"], place) for place, row in rows]
        write_traces(
            self.traces,
            [
                Trace(row.id, row.question, f"<think>{';'.join([str(gold)] * (1 + place % 3))}</think>{gold}")
                for row, gold, place in answers
            ],
        )

    def runs(self, output: Path) -> dict[str, list[str]]:
        """Overrides of a run of each phase, by its name, which is its folder's under ``output`` as well."""
        qwen3, llama, gemma2 = (self.models[family] for family in _FAMILIES)
        lessons = ["phase=distill_kd", f"data.folder={self.lessons}", "data.batch_size=3", "data.epochs=3"]
        on_policy = [
            "phase=distill_on_policy", "model@teacher=mini", f"teacher.path={qwen3}", "data=operators",
            "data.rows._target_=helpers.coin.coin_rows", "+data.rows.size=64", "algo.prompts_per_rollout=8",
            "algo.sampling.max_new_tokens=9", _REWARD, "trainer.max_steps=3",
        ]  # fmt: skip
        rl = [
            _REWARD, "algo.num_iterations=2", "algo.prompts_per_rollout=4", "algo.kl_coef=0.05",
            "algo.reference_refresh_steps=2", "algo.entropy_coef=0.01", "phase.module.micro_batch_tokens=100",
            "+eval.sets.operators.size=5", "trainer.max_steps=4",
        ]  # fmt: skip
        sft = ["model.attention=auto", "model.activation_checkpointing=true", "trainer.max_steps=4"]
        reward = [
            "phase=reward_model", "model=mini", "template=mini", f"model.path={llama}", "data=preferences",
            f"data.rows.path={self.pairs}", "data.heldout_one_in=8", "data.batch_size=7", "data.epochs=1",
            "trainer.max_steps=3", "phase.module.micro_batch_tokens=128", f"paths.output_dir={output}",
        ]  # fmt: skip
        runs = {
            "grpo": overrides_of(coin_rl, output, qwen3, *rl),
            "sft": overrides_of(coin_sft, output, gemma2, self.traces, *sft, "data.batch_size=5"),
            "kd": overrides_of(
                coin_distill, output, *lessons, "phase.module.ce_coef=0.5", "model.attention=auto", student=gemma2
            ),
            "on_policy": overrides_of(coin_distill, output, *on_policy, student=llama),
            "reward": reward,
        }
        return {name: [*overrides, *_COMMON, f"name={name}"] for name, overrides in runs.items()}


def by_ranks(folder: Path, runs: Mapping[str, Sequence[str]], *, ranks: int, timeout_s: float = 400) -> str:
    """Make runs by so many ranks of this machine; returns what they printed.

    Args:
        folder: gets ``runs.json``.
        runs: overrides by name.
        ranks: processes.
        timeout_s: within which all have to be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.json").write_text(json.dumps(dict(runs)))
    return start_ranks("helpers.sharded", folder, ranks=ranks, timeout_s=timeout_s)


def start_ranks(program: str, folder: Path, *, ranks: int, timeout_s: float = 400) -> str:
    """``python -m program folder`` as so many ranks of this machine; returns what the first printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    plain = os.environ | meeting | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", program, str(folder)],
            env=plain | {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=timeout_s)[0] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        pytest.fail("the ranks wait for each other:\n" + "\n".join(process.communicate()[0] for process in processes))
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(said)
    return said[0]


def _main(folder: Path) -> None:
    for overrides in json.loads((folder / "runs.json").read_text()).values():
        train(compose_config("train", overrides))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
