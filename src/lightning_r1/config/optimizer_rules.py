"""Rules about the optimizer: what it needs to be there, said before a model is loaded."""

from __future__ import annotations

import importlib.util

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get


def an_optimizer_of_8_bits_has_bitsandbytes(config: Config) -> None:
    """Its arithmetic is theirs."""
    if _is_8bit(config) and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "optim=adamw8bit: bitsandbytes is not installed; install it with pip install 'lightning-r1[bnb]', or "
            "choose optim=adamw"
        )


def pages_are_cudas(config: Config) -> None:
    """Nothing else has memory that moves between device and host."""
    accelerator = get(config, "trainer.accelerator")
    if _is_8bit(config) and get(config, "optim.paged") and accelerator in ("cpu", "mps"):
        raise ConfigError(
            f"optim.paged=true: pages are CUDA's, and trainer.accelerator={accelerator}; set optim.paged=false"
        )


def _is_8bit(config: Config) -> bool:
    return str(get(config, "optim._target_")).endswith(".adamw8bit")


OPTIMIZER_RULES = (an_optimizer_of_8_bits_has_bitsandbytes, pages_are_cudas)
