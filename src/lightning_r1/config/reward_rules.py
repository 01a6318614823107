"""Rules about rewards: where they lead, where they run, where those of length end."""

from __future__ import annotations

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.program_rules import programs_have_a_grader
from lightning_r1.config.reading import Config, get
from lightning_r1.rewards.outcomes import StopAt
from lightning_r1.rewards.suite import check_routes
from lightning_r1.rewards.workers import WorkerPool


def routes_lead_from_rewards_to_domains(config: Config) -> None:
    """A reward's route names domains that prompts can have."""
    try:
        check_routes(get(config, "reward.rewards") or {}, get(config, "reward.routes") or {})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def rewards_have_somewhere_to_run(config: Config) -> None:
    """Workers with time and memory, and limits to failing that are shares."""
    for key, target in (("reward.workers", WorkerPool), ("reward.stop_at", StopAt)):
        options = {name: value for name, value in (get(config, key) or {}).items() if name != "_target_"}
        if key == "reward.workers" and options.get("workers") == 0:
            continue  # no workers at all
        try:
            target(**options)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def rewards_of_length_end_where_sampling_does(config: Config) -> None:
    """What no completion can reach is never punished; what all reach is punished always."""
    limit = get(config, "algo.sampling.max_new_tokens")
    for name, reward in (get(config, "reward.rewards") or {}).items():
        key, most, cache = f"reward.rewards.{name}", reward.get("max_tokens"), reward.get("cache_tokens")
        if not str(reward.get("_target_")).endswith((".SoftOverlong", ".CosineLength")) or limit is None:
            continue
        if most != limit:
            raise ConfigError(
                f"{key}.max_tokens={most}: completions end at algo.sampling.max_new_tokens={limit}; make them equal, "
                "e.g. by leaving it at ${algo.sampling.max_new_tokens}"
            )
        if cache is not None and not 0 < cache <= limit:
            raise ConfigError(
                f"{key}.cache_tokens={cache}: expected 1 to max_tokens={limit}, e.g. {max(limit // 5, 1)}"
            )


REWARD_RULES = (
    routes_lead_from_rewards_to_domains,
    programs_have_a_grader,
    rewards_have_somewhere_to_run,
    rewards_of_length_end_where_sampling_does,
)
