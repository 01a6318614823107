"""transformers' continuous batching: requests join and leave a batch at every step, their cache lies in pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from lightning_r1.types import Sampling

Row = tuple[list[int], list[float]]
"""Token ids and log-probabilities of a completion."""


def generate_continuously(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    budgets: Sequence[int],
    seed: int,
    stop_ids: Sequence[int],
    pad_id: int,
    timeout_s: float,
    options: dict[str, Any],
    whole: Callable[[int, Row], None],
) -> None:
    """One completion of each prompt.

    All requests wait before the first step is made, so that batches are cut alike whenever this is done again.

    Args:
        model: in evaluation mode; its attention may be switched to flash attention meanwhile.
        prompts: token ids; a prompt that comes several times is computed once, where pages can be shared.
        sampling: temperature, then top-k, then top-p; min-p is not to be had here.
        budgets: most tokens of each completion.
        seed: of all of it together.
        stop_ids: end a completion.
        pad_id: never sampled for.
        timeout_s: within which the next completion has to end.
        options: of transformers' ``ContinuousBatchingConfig``.
        whole: given each prompt's place and its completion, as soon as that ends.

    Raises:
        TimeoutError: if nothing ended in time.
        RuntimeError: if a request failed, or all did.
    """
    start: Callable[..., Any] = model.init_continuous_batching  # type: ignore[assignment]
    manager = start(
        generation_config=_generation(sampling, stop_ids, pad_id),
        continuous_batching_config=ContinuousBatchingConfig(return_logprobs=True, seed=seed, **options),
    )
    names = {str(place): place for place in range(len(prompts))}
    for name, place in names.items():
        manager.add_request(list(prompts[place]), request_id=name, max_new_tokens=budgets[place])
    manager.start()
    try:
        while names:
            result = _next(manager, timeout_s)
            if result.error is not None:
                raise RuntimeError(f"transformers could not complete a prompt: {result.error}")
            whole(names.pop(result.request_id), (list(result.generated_tokens), list(result.logprobs)))
    finally:
        # what is left, if anything is, was given up
        manager.stop(block=True, timeout=timeout_s, hard_stop=bool(names))
        manager.destroy()


def _next(manager: Any, timeout_s: float) -> Any:
    """The next request that ended, well or not."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = manager.get_result(timeout=min(1.0, timeout_s))
        if result is not None and result.is_finished():
            return result
        if not manager.is_running():
            raise RuntimeError(f"transformers stopped sampling: {manager.background_thread_status.fatal_error}")
    raise TimeoutError(f"no completion ended within {timeout_s:g} s")


def _generation(sampling: Sampling, stop_ids: Sequence[int], pad_id: int) -> GenerationConfig:
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        how = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=list(stop_ids), pad_token_id=pad_id, **how
    )


def without_own_seed(work: Callable[[], None]) -> None:
    """Do it and leave torch's randomness as it was: transformers seeds it as a whole."""
    with torch.random.fork_rng():
        work()
