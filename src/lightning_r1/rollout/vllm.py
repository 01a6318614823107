"""vLLM beside the trainer: a process of its own on the trainer's device, fed with the trainer's live weights.

*Weights*: the process starts with random ones from the policy's config alone, and takes the policy's at every sync:
over CUDA IPC on a GPU, elsewhere in buckets over vLLM's own channel. Neither a disk nor a whole second copy on the
host is involved. The prefix cache, which was computed with the old weights, is emptied.

*Randomness*: each completion has a random stream of its own, from its prompt's seed and its place in the group. vLLM
promises no more than that: the logits of a row may be rounded differently in another batch, so that a rollout made
again is identical where batches are cut alike and kernels are deterministic (on CPU it is, tested), else nearly so.

*Ranks*: with several, each has an engine of its own on its own device.
"""

from __future__ import annotations

import base64
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal

import torch

from lightning_r1.models.codec import Codec
from lightning_r1.models.live_weights import buckets, live_weights
from lightning_r1.models.merging import plain_config
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.engine import EngineError, Finished, Progress, as_group
from lightning_r1.rollout.in_time import InTime
from lightning_r1.rollout.vllm_request import sampling_of, vllm_parameters, whole_group
from lightning_r1.rollout.vllm_worker import EXTENSION
from lightning_r1.types import Group, Prompt, Sampling

INSTALL = "install it with: pip install 'lightning-r1[vllm]', or choose rollout=group"
_FIX = "look at vLLM's lines above (VLLM_LOGGING_LEVEL=INFO tells more), or choose rollout=group"


class VLLMEngine:
    """Samples with vLLM, in a process of its own on this process's device.

    Args:
        policy: whose weights are taken at every sync.
        codec: template and tokenizer; vLLM itself sees token ids only.
        dtype: of vLLM's weights; ``auto`` is the policy's.
        gpu_memory_utilization: share of the device that vLLM may take, weights and cache together.
        kv_cache_gib: of the cache, in place of that share.
        max_model_len: longest prompt and completion; null is the model's context.
        max_num_seqs: completions decoded together.
        enforce_eager: without compilation and CUDA graphs: starts faster, samples slower.
        sleep_level: what is given back while the policy is trained: 0 nothing, 1 the cache (weights go to the host),
            2 cache and weights, which the next sync brings. On CPU vLLM cannot sleep; it only forgets its cache.
        bucket_mib: of weights sent at once, where they do not go from GPU to GPU.
        parity_tolerance: see :class:`.OtherProgram`; null never looks.
        start_s: within which vLLM has to be up.
        timeout_s: within which each further call of it has to end.
        more: options of vLLM's ``EngineArgs``, as they are.
    """

    exact = False
    pauses_at_texts = True  # it knows tokens alone, and stops at all that may complete a text
    beside_training = False  # it shares the GPU, and sleeps while the policy trains

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        *,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        gpu_memory_utilization: float = 0.4,
        kv_cache_gib: float | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        enforce_eager: bool = False,
        sleep_level: int = 2,
        bucket_mib: int = 256,
        parity_tolerance: float | None = 0.05,
        start_s: float = 1800.0,
        timeout_s: float = 600.0,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.policy, self.codec, self.dtype = policy, codec, dtype
        self.arguments: dict[str, Any] = {
            "gpu_memory_utilization": gpu_memory_utilization,
            "kv_cache_memory_bytes": None if kv_cache_gib is None else int(kv_cache_gib * 2**30),
            "max_model_len": max_model_len,
            "max_num_seqs": max_num_seqs,
            "enforce_eager": enforce_eager,
            **(more or {}),
        }
        self.sleep_level, self.bucket_mib = sleep_level, bucket_mib
        self.parity_tolerance, self.start_s, self.timeout_s = parity_tolerance, start_s, timeout_s
        self.version = 0
        self._engine: Any = None
        self._transfer: Any = None  # from GPU to GPU, see :mod:`.vllm_transfer`
        self._asleep = False
        self._in_time: InTime | None = None

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """See :class:`~lightning_r1.rollout.engine.RolloutEngine`."""
        self.wake()
        asked = [sampling_of(prompt, sampling) for prompt in prompts]
        stops = (*self.codec.stop_ids, *self.codec.completing(sampling.stop))
        parameters = [vllm_parameters(of, seed, stops) for of, seed in zip(asked, seeds, strict=True)]
        self._call("adding prompts", lambda: self._add(prompts, parameters))
        groups: dict[int, Group] = {}
        while len(groups) < len(prompts):
            for output in self._call("sampling", self._engine.step):
                index = int(output.request_id)
                rows = [
                    (list(one.token_ids), list(one.logprobs.logprobs))
                    for one in sorted(output.outputs, key=lambda one: one.index)
                ]
                rows = whole_group(rows, asked[index], f"vLLM, prompt {prompts[index].id}")
                groups[index] = as_group(prompts[index], self.codec, rows, self.version, sampling.stop)
                if finished:
                    finished(index, groups[index])
                if progress:
                    progress(len(groups) * sampling.group_size, len(prompts) * sampling.group_size)
        return [groups[index] for index in range(len(prompts))]

    def _add(self, prompts: Sequence[Prompt], parameters: Sequence[Mapping[str, Any]]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        left = [*self._engine.output_processor.request_states] if self._engine.has_unfinished_requests() else []
        self._engine.abort_request(left, internal=True)  # of a rollout that was broken off
        for index, (prompt, of_prompt) in enumerate(zip(prompts, parameters, strict=True)):
            self._engine.add_request(
                str(index),
                {"prompt_token_ids": list(prompt.token_ids)},
                SamplingParams(**of_prompt, flat_logprobs=True, output_kind=RequestOutputKind.FINAL_ONLY),
            )

    def sync_weights(self, version: int) -> None:
        """Send the policy's weights, and forget what was computed with others."""
        self.wake()
        if self._on_gpu:
            self._call("taking weights", self._over_ipc)
        else:
            self._call("beginning an update", lambda: self._remote("r1_start"))
            for bucket in buckets(live_weights(self.policy.model, self._dtype), self.bucket_mib << 20):
                content = (bucket.names, bucket.dtypes, bucket.shapes, bucket.data)
                self._call("taking weights", partial(self._remote, "r1_receive", *content))
            self._call("ending an update", lambda: self._remote("r1_finish"))
        self._forget()
        self._call("counting versions", lambda: self._engine.set_weight_version(str(version)))
        self.version = version

    def sleep(self) -> None:
        """Give memory back; see ``sleep_level``."""
        if self._engine is None or self._asleep:
            return
        if self._on_gpu and self.sleep_level:
            self._call("going to sleep", lambda: self._engine.sleep(self.sleep_level))
            self._asleep = True
        else:
            self._forget()

    def wake(self) -> None:
        """Start, or take the memory again."""
        if self._engine is None:
            self._in_time = InTime("vLLM", _FIX, self._gone)
            self._engine = self._call("starting", self._start, seconds=self.start_s)
        if self._asleep:
            self._call("waking up", self._engine.wake_up)
            self._asleep = False

    def close(self) -> None:
        """End vLLM's process."""
        engine, self._engine, self._transfer = self._engine, None, None
        if engine is not None:
            with suppress(EngineError):
                self._call("ending", engine.engine_core.shutdown, seconds=60.0)

    def _call(self, what: str, work: Any, *, seconds: float | None = None) -> Any:
        assert self._in_time is not None
        return self._in_time(what, work, seconds=self.timeout_s if seconds is None else seconds)

    def _gone(self) -> bool:
        """vLLM 0.32 waits for ever for a step of a process that was killed; it knows, though, that it was."""
        try:
            if self._engine is not None:
                self._engine.engine_core.ensure_alive()
        except Exception:
            return True
        return False

    def _remote(self, method: str, *arguments: Any) -> Any:
        return self._engine.collective_rpc(method, timeout=self.timeout_s, args=arguments)

    def _forget(self) -> None:
        if not self._call("emptying its cache", self._engine.reset_prefix_cache):
            raise EngineError("vLLM: its prefix cache could not be emptied, something is still being sampled; " + _FIX)

    @property
    def _on_gpu(self) -> bool:
        return self.policy.model.device.type == "cuda"

    @property
    def _dtype(self) -> torch.dtype:
        return self.policy.model.dtype if self.dtype == "auto" else getattr(torch, self.dtype)

    def _start(self) -> Any:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            from vllm import EngineArgs, LLMEngine
        except ImportError as error:
            raise EngineError(f"rollout: vLLM cannot be imported ({error}); {INSTALL}") from error
        config = plain_config(self.policy.model)  # what is sent are plain weights
        config.architectures = [type(self.policy.model).__name__]
        with tempfile.TemporaryDirectory() as folder, _child_sees(self.policy.model.device):
            config.save_pretrained(folder)
            arguments = EngineArgs(
                model=folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                generation_config="vllm",  # no habits that came with the weights
                dtype=str(self._dtype).removeprefix("torch."),
                logprobs_mode="processed_logprobs",
                enable_prefix_caching=True,
                enable_sleep_mode=self._on_gpu and self.sleep_level > 0,
                worker_extension_cls=EXTENSION,
                weight_transfer_config={"backend": "ipc"} if self._on_gpu else None,
                disable_log_stats=True,
                **self.arguments,
            )
            return LLMEngine.from_engine_args(arguments)

    def _over_ipc(self) -> None:
        from lightning_r1.rollout.vllm_transfer import over_ipc

        torch.cuda.set_device(self.policy.model.device)  # of this thread
        if self._transfer is None:
            self._transfer = over_ipc(self.policy.model, self._dtype, _Beside(self))
        self._transfer.send_weights()


class _Beside:
    """The serving side, as vLLM's trainer side calls it."""

    def __init__(self, engine: VLLMEngine) -> None:
        self._remote = engine._remote

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._remote("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self._remote("start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # handles are no plain data; vLLM unpickles them if its process was allowed to (see _child_sees)
        handles = base64.b64encode(pickle.dumps(update_info["ipc_handles"])).decode()
        self._remote("update_weights", {**update_info, "ipc_handles": None, "ipc_handles_pickled": handles})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._remote("finish_weight_update")


@contextmanager
def _child_sees(device: torch.device) -> Iterator[None]:
    """What the process that is started meanwhile finds in its environment: one GPU, and leave to read handles."""
    told = {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"} if device.type == "cuda" else {}
    if device.type == "cuda":
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        index = device.index or 0
        told["CUDA_VISIBLE_DEVICES"] = visible[index] if visible else str(index)
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
