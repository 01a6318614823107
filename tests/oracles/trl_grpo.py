"""TRL's own code, called on our tensors: the loss, and the scoring of a rollout.

A ``GRPOTrainer`` is made without its constructor (no model, no data, no accelerator) and given just
the attributes its two methods read.
"""

from collections import defaultdict, deque
from types import SimpleNamespace

import torch
from trl.trainer.grpo_trainer import GRPOTrainer


class OneProcess:
    """The part of accelerate's ``Accelerator`` that both methods use."""

    num_processes, process_index, sync_gradients = 1, 0, True
    device = torch.device("cpu")

    def gather(self, tensor):
        return tensor

    def reduce(self, tensor, reduction="sum"):
        return tensor


def bare_trainer(**attributes):
    trainer = object.__new__(GRPOTrainer)
    trainer.accelerator = OneProcess()
    trainer.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
    trainer._metrics = {"train": defaultdict(list)}
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def trl_loss(
    batch,
    *,
    loss_type,
    level="token",
    epsilon=0.2,
    epsilon_high=None,
    delta=None,
    beta=0.0,
    bias_correction=False,
    weights=False,
    off_policy_threshold=None,
    entropy_coef=0.0,
    max_completion_length=8,
    accumulation=1,
    steps_per_generation=1,
):
    """``(loss, d loss / d logprobs, d loss / d entropy, metrics)``; arguments are named as TRL names them."""
    logprobs = batch.logprobs.clone().requires_grad_()
    entropy = batch.entropy.clone().requires_grad_()
    trainer = bare_trainer(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logprobs, entropy, None),
        args=SimpleNamespace(
            use_bias_correction_kl=bias_correction,
            delta=delta,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=steps_per_generation,
        ),
        loss_type=loss_type,
        importance_sampling_level=level,
        epsilon_low=epsilon,
        epsilon_high=epsilon if epsilon_high is None else epsilon_high,
        beta=beta,
        use_vllm=weights,
        vllm_importance_sampling_correction=weights,
        off_policy_mask_threshold=off_policy_threshold,
        max_completion_length=max_completion_length,
        current_gradient_accumulation_steps=accumulation,
        top_entropy_quantile=1.0,
        aux_loss_enabled=False,
        entropy_coef=entropy_coef,
        _entropy_bonus_enabled=bool(entropy_coef),
        use_adaptive_entropy=False,
    )
    ids = torch.zeros(batch.mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": batch.mask.long(),
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old_logprobs,
        "ref_per_token_logps": batch.ref_logprobs,
        "sampling_per_token_logps": batch.rollout_logprobs,
        "importance_sampling_ratio": batch.token_weights,
        "num_items_in_batch": batch.mask.sum(),
    }
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    grad = torch.zeros_like(entropy) if entropy.grad is None else entropy.grad
    return loss.item(), logprobs.grad, grad, metrics


def trl_scored_rollout(
    rewards,
    *,
    reward_weights=None,
    scale_rewards="group",
    aggregation="sum_then_normalize",
    group_size=None,
    old_logprobs=None,
    sampling_logprobs=None,
    importance_mode="token_truncate",
    clip_min=None,
    clip_max=None,
):
    """TRL's advantages of ``rewards`` [N, K], and with log-probabilities (ragged lists) its sampler weights."""
    rows, kinds = rewards.shape
    corrected = sampling_logprobs is not None
    lengths = [len(row) for row in sampling_logprobs] if corrected else [1] * rows
    completions = [[5] * length for length in lengths]
    nothing = [None] * rows
    generated = ([[1]] * rows, completions, None, nothing, sampling_logprobs, {}, None, None)
    names = [f"reward_{k}" for k in range(kinds)]
    trainer = bare_trainer(
        _generate=lambda prompts: generated,
        _calculate_rewards=lambda *args: rewards,
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (old_logprobs, None, None),
        args=SimpleNamespace(
            per_device_train_batch_size=rows,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        environment_factories=None,
        environments=None,
        tools=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_iterations=1,
        use_vllm=corrected,
        vllm_importance_sampling_correction=corrected,
        vllm_importance_sampling_mode=importance_mode,
        vllm_importance_sampling_clip_min=clip_min,
        vllm_importance_sampling_clip_max=clip_max,
        beta=0.0,
        num_generations=group_size,
        multi_objective_aggregation=aggregation,
        scale_rewards=scale_rewards,
        reward_weights=torch.ones(kinds, dtype=rewards.dtype) if reward_weights is None else reward_weights,
        reward_funcs=names,
        reward_func_names=names,
        _logs=defaultdict(deque, rewards=defaultdict(deque), extra=defaultdict(deque)),
        _pending_extra_logs={},
        _pending_metrics={},
        log_multimodal=False,
    )
    return trainer._generate_and_score_completions([{"prompt": "2+2="}] * rows)
