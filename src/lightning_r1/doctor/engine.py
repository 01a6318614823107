"""One tiny rollout with the real weights: does the sampler say what the trainer says?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from lightning_r1.config.build import call_with
from lightning_r1.config.build_policy import build_policy
from lightning_r1.doctor.findings import Finding, NotChecked, check, failed, ok, warning
from lightning_r1.doctor.memory import memory_of_device
from lightning_r1.doctor.patient import Patient
from lightning_r1.doctor.units import gib
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.models.footprint import model_size
from lightning_r1.rollout.engine import RolloutEngine, close, seed_for
from lightning_r1.types import Completion, Group

_PROMPTS, _COMPLETIONS, _TOKENS = 2, 2, 24
# mean difference of log-probabilities, in nats: rounding of the type, not more
_GAP = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}


@check("engine")
def the_engine_samples_from_the_policy(patient: Patient) -> Iterator[Finding]:
    """Log-probabilities of the engine against the policy's own, ends of completions, and speed."""
    if not patient.rolls_out:
        return
    if not patient.options["engine"]:
        raise NotChecked("doctor.engine=false", "doctor.engine=true samples a few tokens with the real weights")
    needed, held = model_size(patient.hollow).weights, memory_of_device(patient)
    if 1.5 * needed > held:
        raise NotChecked(f"the weights take {gib(needed)}, and {gib(held)} are free", "run the doctor on the device")
    codec, policy = build_policy(patient.config)
    device = torch.device("cpu" if patient.on_cpu else "cuda")
    policy = policy.to(device=device, dtype=patient.hollow.model.dtype).eval()
    engine: RolloutEngine = call_with(patient.config["rollout"], policy=policy, codec=codec)
    groups, seconds = _rollout(patient, engine)
    completions = [completion for group in groups for completion in group.completions]
    tokens = sum(len(completion.token_ids) for completion in completions)
    started = time.perf_counter()
    gap = logprob_gap(policy, codec, groups, patient.module.rollout_plan.sampling.temperature)
    patient.speed = {
        "sampled": tokens / seconds,
        "scored": sum(len(g.prompt.token_ids) + len(c.token_ids) for g in groups for c in g.completions)
        / (time.perf_counter() - started),
    }
    allowed = _GAP.get(patient.hollow.model.dtype, 0.05)
    told = f"log-probabilities of engine and policy differ by {gap:.1e} nats a token"
    if gap <= allowed:
        yield ok(f"{told}; {_ends(completions)}; {tokens / seconds:,.0f} tokens/s with {len(completions)} rows")
    elif engine.exact:
        yield failed(f"{told}, more than {allowed:g}: the engine does not sample from this policy", "rollout=hf")
    else:
        yield warning(f"{told}", "algo.sampler_correction=truncate corrects such a mismatch")


def _rollout(patient: Patient, engine: RolloutEngine) -> tuple[list[Group], float]:
    plan, module = patient.module.rollout_plan, patient.module
    prompts = [module.stream.at(position) for position in range(_PROMPTS)]
    tokens = min(_TOKENS, plan.sampling.max_new_tokens)
    sampling = replace(plan.sampling, group_size=_COMPLETIONS, max_new_tokens=tokens)
    seeds = [seed_for(patient.config["seed"], "doctor", position) for position in range(_PROMPTS)]
    engine.wake()
    engine.sync_weights(0)
    engine.generate(prompts, replace(sampling, max_new_tokens=1), seeds=seeds)  # whatever is loaded on first use
    started = time.perf_counter()
    groups = engine.generate(prompts, sampling, seeds=seeds)
    seconds = time.perf_counter() - started
    close(engine)
    return groups, seconds


def _ends(completions: Sequence[Completion]) -> str:
    stopped = sum(completion.finish_reason == "stop" for completion in completions)
    return f"{stopped} of {len(completions)} completions stopped within {_TOKENS} tokens"
