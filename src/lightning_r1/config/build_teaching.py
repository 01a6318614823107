"""From a resolved config to what a teaching job needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from hydra.utils import instantiate

from lightning_r1.config.build import check
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.errors import ConfigError
from lightning_r1.data.lessons import MadeFrom
from lightning_r1.experience.teaching import LOGPROB_DTYPES
from lightning_r1.models.codec import Codec
from lightning_r1.models.identity import vocabulary_hash, vocabulary_size, weights_hash
from lightning_r1.models.load import context_length
from lightning_r1.models.policy import Policy
from lightning_r1.types import Trace


@dataclass(frozen=True)
class TeachingJob:
    """Everything that a teaching job needs."""

    codec: Codec
    teacher: Policy
    made_from: MadeFrom
    parts: int
    """Of the traces; a shard each."""


def check_teaching(config: Mapping[str, Any]) -> None:
    """What can be known to be wrong before anything is read.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    check(config)
    options = config["teach"]
    for key in ("top_k", "max_tokens", "micro_batch_tokens", "traces_a_shard"):
        if options[key] < 1:
            raise ConfigError(f"teach.{key}={options[key]}: expected >= 1")
    if options["temperature"] <= 0:
        raise ConfigError(f"teach.temperature={options['temperature']}: a distribution needs a temperature above 0")
    if options["logprobs_dtype"] not in LOGPROB_DTYPES:
        raise ConfigError(f"teach.logprobs_dtype={options['logprobs_dtype']}: expected {' or '.join(LOGPROB_DTYPES)}")


def build_teaching(config: Mapping[str, Any], device: torch.device) -> TeachingJob:
    """Build a job from a checked config.

    Raises:
        ConfigError: for what only shows when files are read.
        DataError: for a line that is no trace: all are read once, before the teacher is loaded.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    parts = sum(1 for _ in trace_parts(config))
    if not parts:
        raise ConfigError(f"traces.path={config['traces'].get('path')}: there are no traces in it")
    codec, teacher = build_policy({**config, "model": config["teacher"]})
    return TeachingJob(codec, teacher.to(device), _made_from(config, codec, teacher), parts)


def trace_parts(config: Mapping[str, Any]) -> Iterator[list[Trace]]:
    """The traces of one shard after the other."""
    traces = iter(instantiate(config["traces"], _convert_="all"))
    while part := list(islice(traces, config["teach"]["traces_a_shard"])):
        yield part


def _made_from(config: Mapping[str, Any], codec: Codec, teacher: Policy) -> MadeFrom:
    options, path = config["teach"], str(config["teacher"]["path"])
    ids = min(vocabulary_size(codec.tokenizer), len(teacher.model.get_output_embeddings().weight))
    if options["top_k"] > ids:
        raise ConfigError(f"teach.top_k={options['top_k']}: the teacher knows {ids} ids; lower it")
    if options["max_tokens"] > (context := context_length(path, config["teacher"].get("context"))):
        raise ConfigError(f"teach.max_tokens={options['max_tokens']}: the teacher's context is {context}; lower it")
    return MadeFrom(
        teacher=path,
        weights=weights_hash(teacher.model),
        vocabulary=vocabulary_hash(codec.tokenizer),
        ids=ids,
        template=codec.template.fingerprint(),
        **{name: options[name] for name in ("top_k", "temperature", "logprobs_dtype", "max_tokens", "traces_a_shard")},
    )
