"""Rules about engines that are other programs: what they need to be right, and to be there."""

from __future__ import annotations

import importlib.util
import re
from urllib.parse import urlsplit

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get

_VLLM = (".VLLMEngine", ".VLLMServerEngine", ".VLLMServersEngine")


def another_programs_samples_are_corrected(config: Config) -> None:
    """Other kernels give other numbers: what is sampled is never quite from the policy that is trained."""
    if get(config, "phase.kind") != "rl" or not _engine(config).endswith(_VLLM):
        return
    if get(config, "algo.sampler_correction") == "none":
        raise ConfigError(
            f"algo.sampler_correction=none: rollout._target_={_engine(config)} is another program, whose numbers are "
            "not the trainer's; set algo.sampler_correction=truncate (or mask), or choose rollout=group"
        )


def engines_options_are_in_range(config: Config) -> None:
    """Counts and seconds above zero, shares between, an address that is one."""
    if not _engine(config).endswith((*_VLLM, ".ContinuousEngine")):
        return
    above_zero = ("kv_cache_gib", "max_model_len", "max_num_seqs", "start_s", "timeout_s", "at_once", "bucket_mib")
    ranges = {name: (lambda value: value > 0, "> 0") for name in (*above_zero, "parity_tolerance", "sync_s")}
    ranges["gpu_memory_utilization"] = (lambda value: 0 < value < 1, "a share between 0 and 1")
    ranges["sleep_level"] = (lambda value: value in (0, 1, 2), "0, 1 or 2")
    ranges["base_url"] = (_is_address, "an address like http://host:8000")
    ranges["base_urls"] = (_are_addresses, "addresses like [http://host:8000]")
    for name, (fits, expected) in ranges.items():
        value = get(config, f"rollout.{name}")
        if value is not None and not fits(value):
            raise ConfigError(f"rollout.{name}={value}: expected {expected}")


def an_engine_in_vllm_has_vllm(config: Config) -> None:
    """Said before a model is loaded. A server has it on its own side."""
    if not _engine(config).endswith(".VLLMEngine"):
        return
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:  # none, or a folder that is only called so
        raise ConfigError(
            "rollout=vllm: vLLM is not installed; install it with pip install 'lightning-r1[vllm]', or choose "
            "rollout=group"
        )


def _is_address(value: str) -> bool:
    return bool(re.match(r"https?://", value)) and bool(urlsplit(value).hostname)


def _are_addresses(values: object) -> bool:
    return (
        isinstance(values, list) and bool(values) and all(isinstance(one, str) and _is_address(one) for one in values)
    )


def _engine(config: Config) -> str:
    return str(get(config, "rollout._target_"))


ENGINE_RULES = [another_programs_samples_are_corrected, engines_options_are_in_range, an_engine_in_vllm_has_vllm]
