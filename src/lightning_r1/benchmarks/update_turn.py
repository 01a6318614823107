"""Updates of one system on one piece of work: what :mod:`.update` and :mod:`.memory` run in fresh processes.

The work is groups of completions with fixed advantages; an update is forward, loss, backward, clipping and AdamW.
All systems do the same: each reports its first loss and gradient norm, and a test holds them against each other.
"""

from __future__ import annotations

import gc
import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_r1.benchmarks.peak import forget_peak, peak_gib, used_gib
from lightning_r1.benchmarks.shapes import random_model
from lightning_r1.experience.batching import Choice, Sequences, micro_batches
from lightning_r1.functional import policy_loss
from lightning_r1.models.load import load_model, quiet_transformers
from lightning_r1.models.policy import Policy
from lightning_r1.models.saving import Checkpointing, checkpoint_activations
from lightning_r1.modules.layouts import layouts_of
from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.master import collect_gradients, stepped_on
from lightning_r1.parallel.speed import measured_flops, peak_flops

TRL = "TRL"


@dataclass(frozen=True)
class System:
    """How ours computes an update."""

    packing: Choice = "off"
    shared_prefix: Choice = "off"
    checkpointing: Checkpointing = False
    compiled: bool = False
    dtype: str | None = None
    """In place of the work's."""
    masters: str = "auto"


SYSTEMS = {
    "padded": System(),
    "packed": System(packing="on"),
    "shared prefix": System(shared_prefix="on"),
    "auto": System(packing="auto", shared_prefix="auto"),
    "checkpointing": System(shared_prefix="on", checkpointing=True),
    "offload": System(shared_prefix="on", checkpointing="offload"),
    "compile": System(shared_prefix="on", compiled=True),
    "bf16": System(shared_prefix="on", dtype="bfloat16", masters="off"),
    "bf16 + masters": System(shared_prefix="on", dtype="bfloat16"),
}


@dataclass(frozen=True)
class Work:
    """What every system does."""

    folder: str
    """Where the model is made."""
    shape: str = "qwen2_5_0_5b"
    prompts: int = 1
    group_size: int = 8
    prompt_tokens: int = 256
    completion_tokens: int = 64
    lengths: str = "fixed"
    """fixed, or natural: uniform between an eighth of the limit and the limit."""
    micro_batch_tokens: int = 4096
    rows_per_forward: int = 8
    """Of TRL."""
    dtype: str = "float32"
    attention: str = "auto"
    steps: int = 2
    """Measured, after one to warm up."""
    threads: int = 1

    def sequences(self) -> Sequences:
        """Random tokens and advantages, the same in every process."""
        chance = random.Random(0)
        rows: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.prompts):
            prompt = torch.tensor(chance.choices(range(200), k=self.prompt_tokens))
            for _ in range(self.group_size):
                fewest = self.completion_tokens if self.lengths == "fixed" else max(1, self.completion_tokens // 8)
                length = chance.randint(fewest, self.completion_tokens)
                rows.append((prompt, torch.tensor(chance.choices(range(200), k=length))))
        advantages = torch.tensor([chance.gauss(0, 1) for _ in rows])
        return Sequences([prompt for prompt, _ in rows], [completion for _, completion in rows], advantages)


@dataclass(frozen=True)
class Turn:
    """What a process measured."""

    seconds: list[float]
    peak_gib: float
    above_start_gib: float
    """Of that, what came after the model was loaded: gradients, optimizer, activations."""
    computed_tokens: int
    """That the layers computed, padding included."""
    flops: float
    """Of an update's products over what it has to compute: no padding, shared prompts once, nothing twice."""
    peak_flops: float
    """Of the device."""
    loss: float
    grad_norm: float


def run(work: Work, system: str) -> Turn:
    """A turn in a process of its own: peak memory is a process's, and nothing warms another's caches."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(turn, work, system).result()


def turn(work: Work, system: str) -> Turn:
    """A turn in this process."""
    torch.set_num_threads(work.threads)
    options = SYSTEMS.get(system, System())
    dtype = options.dtype or work.dtype
    folder = random_model(work.shape, Path(work.folder))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quiet_transformers()
    model = load_model(folder, dtype=dtype, attention=work.attention).train()
    nn.Module.to(model, device)
    optimizer = adamw(model.named_parameters(), lr=1e-6, master_weights=options.masters)  # type: ignore[arg-type]
    parameters = [stepped_on(optimizer, parameter) for parameter in model.parameters()]
    accumulate = theirs(work, model) if system == TRL else ours(work, model, options, device, optimizer)
    gc.collect()
    forget_peak(device.type)
    start = used_gib(device.type)  # the other's library is there by now
    seconds, numbers = [], []
    for _ in range(work.steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss, computed = accumulate()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        numbers.append((float(loss), float(norm)))  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    peak = peak_gib(device.type)
    best = peak_flops(device) or measured_flops(dtype=getattr(torch, dtype))
    flops = useful_flops(model, work.sequences(), shared=options.shared_prefix != "off")
    return Turn(seconds[1:], peak, peak - start, computed, flops, best, *numbers[0])


def ours(work: Work, model: Any, system: System, device: torch.device, optimizer: Any) -> Any:
    """Gradients of an update, as the phases accumulate them; returns loss and tokens computed."""
    checkpoint_activations(model, system.checkpointing)
    policy = Policy(model, compiled=system.compiled).train()
    layouts, rows = layouts_of(policy, system.packing, system.shared_prefix), work.sequences()
    counted = sum(map(len, rows.completion_ids))

    def accumulate() -> tuple[float, int]:
        total, computed = 0.0, 0
        for batch in micro_batches(rows, work.micro_batch_tokens, 0, layouts):
            on_device = batch.to(device)
            mask = on_device.completion_mask
            scores = policy(on_device.input_ids, on_device.prompt_lengths, mask, layout=on_device.layout)
            out = policy_loss(
                scores.logprobs, scores.logprobs.detach(), on_device.advantages, mask,
                denominator=counted, reduction="token_mean", entropy=scores.entropy,
            )  # fmt: skip
            out.loss.backward()
            collect_gradients(optimizer)
            total += float(out.loss.detach())
            computed += batch.input_ids.numel() if batch.layout is None else len(batch.layout)
        return total, computed

    return accumulate


def theirs(work: Work, model: Any) -> Any:
    """The same by the loss of TRL's ``GRPOTrainer``, padded as it pads: prompts left, completions right."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    trainer = GRPOTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(work.folder),
        reward_funcs=_nothing,
        train_dataset=Dataset.from_dict({"prompt": ["a"]}),
        args=GRPOConfig(
            output_dir=f"{work.folder}/trl", use_cpu=not torch.cuda.is_available(), bf16=False, report_to=[],
            gradient_checkpointing=False, num_generations=work.group_size, save_strategy="no", disable_tqdm=True,
            per_device_train_batch_size=work.group_size, loss_type="dapo", beta=0.0, log_level="error",
            max_completion_length=work.completion_tokens,
        ),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    rows, device = work.sequences(), next(model.parameters()).device
    counted = torch.tensor(sum(map(len, rows.completion_ids)), device=device)

    def accumulate() -> tuple[float, int]:
        total, computed = 0.0, 0
        for first in range(0, len(rows), work.rows_per_forward):
            part = rows.select(range(first, min(first + work.rows_per_forward, len(rows))))
            prompts, completions = torch.stack(part.prompt_ids), part.completion_ids
            ids = nn.utils.rnn.pad_sequence(completions, batch_first=True)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(tokens) for tokens in completions], batch_first=True)
            inputs = {
                "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": ids,
                "completion_mask": mask, "advantages": part.advantages,
            }  # fmt: skip
            inputs = {name: value.to(device) for name, value in inputs.items()}
            loss = trainer._compute_loss(trainer.model, {**inputs, "num_items_in_batch": counted})
            loss.backward()
            total += float(loss.detach())
            computed += prompts.numel() + ids.numel()
        return total, computed

    return accumulate


def _nothing(completions: list[str], **columns: Any) -> list[float | None]:
    return [0.0] * len(completions)


def useful_flops(model: Any, rows: Sequences, *, shared: bool) -> float:
    """Of forward and backward: layers on every token, the head on completions, attention on what is seen."""
    config = model.config.get_text_config(decoder=True)
    head = model.get_output_embeddings().weight.numel()
    tied = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    body = sum(parameter.numel() for parameter in model.parameters()) - head * (1 if tied else 2)
    completions = sum(map(len, rows.completion_ids))
    prompts = {tuple(ids.tolist()): len(ids) for ids in rows.prompt_ids}.values() if shared else map(
        len, rows.prompt_ids
    )  # fmt: skip
    lengths = list(prompts)
    pairs = sum(length**2 / 2 for length in lengths)
    pairs += sum(len(c) * (len(p) + len(c) / 2) for p, c in zip(rows.prompt_ids, rows.completion_ids, strict=True))
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    products = 2 * body * (sum(lengths) + completions) + 2 * head * completions
    return 3 * (products + 4 * config.num_hidden_layers * width * pairs)
