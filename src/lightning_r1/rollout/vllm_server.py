"""A vLLM server, on this node or others, over HTTP: token ids go out, token ids and log-probabilities come back.

Start it with ``python -m lightning_r1.rollout.serve_vllm MODEL`` (see :mod:`.serve_vllm`). Rank 0 sends it the
policy's weights at every sync, all ranks sample from it.

*Weights*: by NCCL from GPU to GPU where the server was started for that, elsewhere over HTTP in buckets, which needs
no shared folder and no vLLM on the trainer's side. A broken-off update is begun anew by the next one. Each update has
a version, which vLLM hands back with every completion: samples of other weights are an error.

*Time*: every call has a deadline, and every failure is an :class:`.EngineError` that names the address, the seconds and
the fix.

*Randomness*: as in :mod:`.vllm`.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_r1.models.codec import Codec
from lightning_r1.models.live_weights import buckets, live_weights
from lightning_r1.models.policy import Policy
from lightning_r1.parallel.collectives import all_gather, rank, together
from lightning_r1.rollout.engine import EngineError, Finished, Progress, as_group
from lightning_r1.rollout.in_time import InTime, as_answered
from lightning_r1.rollout.vllm_http import FIX, VLLMRoutes
from lightning_r1.rollout.vllm_request import Row, sampling_of, vllm_parameters, whole_group
from lightning_r1.types import Group, Prompt, Sampling


class VLLMServerEngine:
    """Samples with a vLLM server.

    Args:
        policy: whose weights are sent at every sync.
        codec: template and tokenizer; the server sees token ids only.
        base_url: of the server, without ``/v1``.
        api_key_env: variable with the key that the server asks for, if it asks for one.
        dtype: that weights are sent in; ``auto`` is the server's own.
        weights: ``nccl``, ``http``, or ``auto``: NCCL if the policy is on a GPU and the server was started for it.
        nccl_address: of this machine, as the server reaches it; null is its host name.
        bucket_mib: of weights in one request.
        at_once: prompts in flight, on each rank.
        parity_tolerance: see :class:`.OtherProgram`; null never looks.
        start_s: within which the server has to be up.
        timeout_s: within which a request has to be answered, one prompt's whole group sampled.
        sync_s: within which an update of the weights has to end.
    """

    exact = False
    pauses_at_texts = True  # it knows tokens alone, and stops at all that may complete a text
    beside_training = True  # another program, with weights of its own

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        *,
        base_url: str,
        api_key_env: str = "VLLM_API_KEY",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        weights: Literal["auto", "nccl", "http"] = "auto",
        nccl_address: str | None = None,
        bucket_mib: int = 256,
        at_once: int = 64,
        parity_tolerance: float | None = 0.05,
        start_s: float = 1800.0,
        timeout_s: float = 1800.0,
        sync_s: float = 600.0,
    ) -> None:
        self.policy, self.codec, self.dtype, self.weights = policy, codec, dtype, weights
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self.nccl_address, self.bucket_mib, self.at_once = nccl_address, bucket_mib, at_once
        self.parity_tolerance = parity_tolerance
        self.start_s, self.timeout_s, self.sync_s = start_s, timeout_s, sync_s
        self.version = 0
        self.routes = VLLMRoutes(self.url, api_key_env, timeout_s=timeout_s, sync_s=sync_s)
        self.served: dict[str, Any] = {}
        """What the server says of itself, once it is up."""
        self._transfer: Any = None  # by NCCL, see :mod:`.vllm_transfer`
        self._in_time = InTime(f"vLLM at {self.url}", FIX)

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
        pairs = enumerate(zip(prompts, seeds, strict=True))
        asked = [partial(self.sampler(index), prompt, sampling, seed) for index, (prompt, seed) in pairs]
        groups: dict[int, Group] = {}
        self.wake()
        for index, rows in as_answered(asked, self.at_once):
            groups[index] = as_group(prompts[index], self.codec, rows, self.version, sampling.stop)
            if finished:
                finished(index, groups[index])
            if progress:
                progress(len(groups) * sampling.group_size, len(prompts) * sampling.group_size)
        return [groups[index] for index in range(len(prompts))]

    def sampler(self, index: int) -> Callable[[Prompt, Sampling, int], list[Row]]:
        """Who samples the prompt of that place: gives tokens and log-probabilities of its whole group."""
        return self._sample

    def _sample(self, prompt: Prompt, sampling: Sampling, seed: int) -> list[Row]:
        sampling = sampling_of(prompt, sampling)
        stops = (*self.codec.stop_ids, *self.codec.completing(sampling.stop))
        parameters = vllm_parameters(sampling, seed, stops)
        path = "/inference/v1/generate"
        told = self.routes.ask(path, {"token_ids": list(prompt.token_ids), "sampling_params": parameters})
        try:
            choices = sorted(told["choices"], key=lambda choice: choice["index"])
            rows = [(list(map(int, one["token_ids"])), _logprobs(one)) for one in choices]
            versions = {span["version"] for one in choices for span in one["weight_versions"]}
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(
                f"{self.url}{path}: the reply is not vLLM 0.32's ({type(error).__name__}: {error}); {FIX}"
            ) from error
        if versions != {str(self.version)}:
            raise EngineError(
                f"{self.url}: it samples with weights of version {', '.join(sorted(versions))}, this run is at "
                f"{self.version}: it was restarted, or another run writes to it. Give each run a server of its own"
            )
        largest = max(token for tokens, _ in rows for token in tokens)
        if largest >= self._vocabulary:
            raise EngineError(f"{self.url}: token {largest} came, the policy has {self._vocabulary}; {FIX}")
        return whole_group(rows, sampling, f"{self.url}, prompt {prompt.id}")

    def sync_weights(self, version: int) -> None:
        """Send the policy's weights from rank 0; all ranks go on when the server has them."""
        self.wake()
        together(lambda: self._send(version), EngineError)
        self.version = version

    def _send(self, version: int) -> None:
        dtype: torch.dtype = getattr(torch, self.served["dtype"] if self.dtype == "auto" else self.dtype)
        if self._by_nccl:
            self._in_time("taking weights by NCCL", lambda: self._over_nccl(dtype), seconds=self.sync_s)
        else:
            weights = live_weights(self.policy.model, dtype)
            try:
                if rank() == 0:
                    self._over_http(weights)
            finally:
                for _ in weights:  # making them whole is collective: on every rank, to the last
                    pass
        if rank():
            return
        if not self.routes.ask("/reset_prefix_cache", {}, seconds=self.sync_s).get("success"):
            raise EngineError(
                f"{self.url}/reset_prefix_cache: the cache of the old weights could not be emptied, something is still "
                "being sampled there. Give each run a server of its own"
            )
        self.routes.ask("/update_weight_version", {"new_version": str(version)}, seconds=self.sync_s)

    def _over_http(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        deadline = time.monotonic() + self.sync_s
        self.routes.remote("r1_start")
        for bucket in buckets(weights, self.bucket_mib << 20):
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{self.url}: the weights were not sent within {self.sync_s:g} s; raise rollout.sync_s"
                )
            data = base64.b64encode(bucket.data).decode()
            self.routes.remote("r1_receive", bucket.names, bucket.dtypes, bucket.shapes, data)
        self.routes.remote("r1_finish")

    def sleep(self) -> None:
        """The server has its own memory."""

    def wake(self) -> None:
        """Wait until the server is up, and see whether it serves this model. Once."""
        if not self.served:
            self.served = together(self._wait, EngineError)

    def _wait(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.start_s
        while True:
            try:
                self.routes.ask("/health", None, seconds=min(10.0, self.start_s), method="GET")
                break
            except EngineError as error:
                if time.monotonic() + 0.5 > deadline:
                    raise EngineError(
                        f"rollout.base_url={self.url}: no server is up after {self.start_s:g} s (rollout.start_s); "
                        f"last: {error}"
                    ) from error
            time.sleep(0.5)
        served = self.routes.remote("r1_describe")
        self._compare(served)
        return served

    def close(self) -> None:
        """The server lives on: it was not started here."""

    def _compare(self, served: Any) -> None:
        """Refuse a server of another model.

        Raises:
            EngineError: names what differs.
        """
        config = self.policy.model.config.get_text_config(decoder=True)
        own = {
            "architecture": type(self.policy.model).__name__,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "logprobs_mode": "processed_logprobs",
        }
        if not isinstance(served, Mapping):
            raise EngineError(f"{self.url}/collective_rpc: it does not describe itself; {FIX}")
        for name, value in own.items():
            if served.get(name) != value:
                raise EngineError(
                    f"rollout.base_url={self.url}: it serves {name}={served.get(name)}, this run needs {value}; start "
                    "it with python -m lightning_r1.rollout.serve_vllm MODEL, MODEL being this run's model.path"
                )
        if self.weights == "nccl" and served.get("weight_transfer") != "nccl":
            raise EngineError(
                f"rollout.weights=nccl: the server at {self.url} was not started for it; start it with "
                "serve_vllm MODEL --weights nccl, or set rollout.weights=http"
            )

    @property
    def _vocabulary(self) -> int:
        return int(self.policy.model.config.get_text_config(decoder=True).vocab_size)

    @property
    def _by_nccl(self) -> bool:
        return self.weights == "nccl" or (
            self.weights == "auto"
            and self.policy.model.device.type == "cuda"
            and self.served.get("weight_transfer") == "nccl"
        )

    def _over_nccl(self, dtype: torch.dtype) -> None:
        from lightning_r1.rollout.vllm_transfer import over_nccl

        torch.cuda.set_device(self.policy.model.device)  # of this thread
        if self._transfer is None:
            with socket.socket() as free:
                free.bind(("", 0))
                port = free.getsockname()[1]
            self._transfer = over_nccl(
                self.policy.model,
                dtype,
                _Away(self.routes.ask, self.sync_s),
                rank=rank(),
                address=self.nccl_address or socket.gethostname(),
                port=all_gather(port)[0],
                servers=int(self.served["world_size"]),
            )
        self._transfer.send_weights()


class _Away:
    """The serving side, as vLLM's trainer side calls it."""

    def __init__(self, ask: Callable[..., dict[str, Any]], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._ask("/init_weight_transfer_engine", {"init_info": init_info}, seconds=self._seconds)

    def start_weight_update(self) -> None:
        self._ask("/start_weight_update", {}, seconds=self._seconds)

    def update_weights(self, update_info: Any) -> None:
        self._ask("/update_weights", {"update_info": update_info}, seconds=self._seconds)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._ask("/finish_weight_update", {}, seconds=self._seconds)


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    return [float(entry["logprob"]) for entry in choice["logprobs"]["content"]]
