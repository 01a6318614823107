"""Rules about the logger: what W&B would refuse, hours later or in silence."""

from __future__ import annotations

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get


def wandb_can_be_begun(config: Config) -> None:
    """A mistake is none that a run should go on without W&B for."""
    options = get(config, "logger.wandb")
    if options is None:
        return
    # late: --help does not wait for it
    from lightning_r1.callbacks.wandb_log import ARTIFACTS, MODES, unknown_options

    for name, choices in (("mode", MODES), ("artifacts", ARTIFACTS)):
        if (value := options.get(name, choices[0])) not in choices:
            raise ConfigError(f"logger.wandb.{name}={value}: choose one of {', '.join(choices)}")
    for name in ("init_timeout_s", "finish_timeout_s"):
        if not (isinstance(value := options.get(name, 1), int | float) and value > 0):
            raise ConfigError(f"logger.wandb.{name}={value}: expected seconds > 0")
    for name in unknown_options(options):
        raise ConfigError(f"logger.wandb.{name}: wandb.init takes no such argument; leave it out")


LOGGER_RULES = (wandb_can_be_begun,)
