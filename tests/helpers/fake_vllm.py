"""A server that answers as vLLM 0.32 does, from a model of its own; and misbehaves where the test says so."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from helpers.endpoint import Answer, Endpoint, endpoint
from lightning_r1.models.codec import Codec
from lightning_r1.models.live_weights import Bucket, unpacked
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.engine import seed_for
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.vllm_worker import WeightReceiver
from lightning_r1.types import Completion, Prompt, Sampling

GENERATE = "/inference/v1/generate"


class FakeVLLM:
    """Its model takes the weights that are sent and samples with them.

    Args:
        policy: of its own; what is sent replaces its weights.
        codec: to sample with; prompts and completions are token ids.
    """

    def __init__(self, policy: Policy, codec: Codec) -> None:
        self.policy, self.engine = policy, GroupEngine(policy, codec)
        self.version = "default"
        self.calls: list[str] = []
        self.received: list[str] = []
        self.instead: dict[str, Callable[[dict[str, Any]], Answer | None]] = {}
        """By path or method of the worker: what is answered in place of the right thing; None is the right thing."""
        config = policy.model.config
        self.describes: dict[str, Any] = {
            "architecture": type(policy.model).__name__,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "dtype": "float32",
            "logprobs_mode": "processed_logprobs",
            "weight_transfer": None,
            "world_size": 1,
        }

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """To one request."""
        what = body["method"] if path == "/collective_rpc" else path
        self.calls.append(what)
        instead = self.instead[what](body) if what in self.instead else None
        return instead if instead is not None else json.dumps(getattr(self, _NAMES[what])(body)).encode()

    def health(self, body: dict[str, Any]) -> dict[str, Any]:
        return {}

    def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"results": [self.describes]}

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        self.received = []
        return {"results": [None]}

    def receive(self, body: dict[str, Any]) -> dict[str, Any]:
        import base64

        names, dtypes, shapes, data = body["args"]
        weights = unpacked(Bucket(names, dtypes, shapes, base64.b64decode(data, validate=True)))
        with torch.no_grad():
            own = self.policy.model.state_dict()
            for name, tensor in weights:
                own[name].copy_(tensor)
        self.received += names
        return {"results": [None]}

    def reset(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    def new_version(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version = body["new_version"]
        return {"success": True, "new_version": self.version}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        how = body["sampling_params"]
        assert how["logprobs"] == 0
        assert how["ignore_eos"]
        sampling = Sampling(
            group_size=how["n"], max_new_tokens=how["max_tokens"], temperature=how["temperature"], top_p=how["top_p"],
            top_k=how["top_k"], min_p=how["min_p"],
        )  # fmt: skip
        prompt = Prompt("asked", "", "", tuple(body["token_ids"]), {})
        (group,) = self.engine.generate([prompt], sampling, seeds=[seed_for(how["seed"])])
        stops = set(how["stop_token_ids"])
        return {"choices": [self._choice(place, _ended(done, stops)) for place, done in enumerate(group.completions)]}

    def _choice(self, place: int, done: Any) -> dict[str, Any]:
        entries = zip(done.token_ids, done.logprobs, strict=True)
        return {
            "index": place,
            "finish_reason": done.finish_reason,
            "token_ids": list(done.token_ids),
            "logprobs": {"content": [{"token_id": token, "logprob": value} for token, value in entries]},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(done.token_ids)}],
        }


def _ended(done: Completion, stops: set[int]) -> Completion:
    """Cut behind the first token that it was told to stop at."""
    end = next((place + 1 for place, token in enumerate(done.token_ids) if token in stops), len(done.token_ids))
    return replace(done, token_ids=done.token_ids[:end], logprobs=done.logprobs[:end])


_NAMES = {
    "/health": "health",
    "r1_describe": "describe",
    "r1_start": "start",
    "r1_receive": "receive",
    "r1_finish": "health",
    "/reset_prefix_cache": "reset",
    "/update_weight_version": "new_version",
    GENERATE: "generate",
}
assert all(hasattr(WeightReceiver, name) for name in _NAMES if name.startswith("r1_"))


@contextmanager
def serving(fake: FakeVLLM, *, port: int = 0) -> Iterator[Endpoint]:
    """Serve until the block ends; ``url`` ends with ``/v1``."""
    with endpoint(lambda body: fake.answer(served.requests[-1][0], body), port=port) as served:
        yield served


def main() -> None:
    """In the place of ``python -m lightning_r1.rollout.serve_vllm MODEL --port PORT``: tells what it is asked."""
    from helpers.models import tiny_policy
    from helpers.prompts import mini_codec

    class Telling(FakeVLLM):
        def answer(self, path: str, body: dict[str, Any]) -> Answer:
            answered = super().answer(path, body)
            print("asked", self.calls[-1], flush=True)  # noqa: T201
            return answered

    torch.set_num_threads(1)
    print("serving", *sys.argv[1:], flush=True)  # noqa: T201
    with serving(Telling(tiny_policy(seed=7), mini_codec()), port=int(sys.argv[sys.argv.index("--port") + 1])):
        threading.Event().wait()
