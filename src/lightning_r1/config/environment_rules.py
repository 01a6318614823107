"""Rules about environments: who can sample with one, and what fits into an episode."""

from __future__ import annotations

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get
from lightning_r1.config.schema import locate
from lightning_r1.rollout.episodes import Budget


def an_environment_answers_someone(config: Config) -> None:
    """A reward model writes nothing; and traces have no place for what was not written by the model."""
    if get(config, "environment") is None:
        return
    if get(config, "phase.kind") == "reward_model":
        raise ConfigError("environment: a reward model writes nothing that could be answered; set environment=none")
    if get(config, "sample") is not None:
        raise ConfigError(
            "environment: traces are plain texts, and whoever learns from them would learn to write the replies as "
            "well; sample with environment=none"
        )


def an_environments_engine_stops_at_texts(config: Config) -> None:
    """A call ends with a text, which some engines do not look for."""
    target = get(config, "rollout._target_")
    if get(config, "environment") is None or target is None:
        return
    engine = locate(target, "rollout._target_")
    if not (getattr(engine, "stops_at_texts", False) or getattr(engine, "pauses_at_texts", False)):
        raise ConfigError(
            f"environment: rollout._target_={target} does not stop where a call ends; choose rollout=group, hf or "
            "vllm, or environment=none"
        )


def texts_end_completions_where_they_are_looked_for(config: Config) -> None:
    """An engine that looks for no texts would pass over them, or end at what only resembles one."""
    target = get(config, "rollout._target_")
    if get(config, "environment") is not None or target is None:
        return
    engine = locate(target, "rollout._target_")
    for key in ("algo.sampling", "eval.sampling", "sample.sampling"):
        stop = get(config, f"{key}.stop")
        if stop and not getattr(engine, "stops_at_texts", False):
            raise ConfigError(
                f"{key}.stop={stop}: rollout._target_={target} does not look for texts; choose rollout=group or hf, or "
                "stop at a token (template.stop)"
            )


def an_episode_has_room_for_replies(config: Config) -> None:
    """A reply as long as the whole completion would always be the last."""
    options = get(config, "environment.budget")
    if options is None:
        return
    try:
        Budget(**{name: value for name, value in options.items() if name != "_target_"})
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for key in ("algo.sampling", "eval.sampling"):
        limit = get(config, f"{key}.max_new_tokens")
        if limit is not None and options["max_reply_tokens"] >= limit:
            raise ConfigError(
                f"environment.budget.max_reply_tokens={options['max_reply_tokens']}: an episode has "
                f"{key}.max_new_tokens={limit} tokens in all, replies included; lower the first, or raise the second"
            )


ENVIRONMENT_RULES = (
    an_environment_answers_someone,
    an_environments_engine_stops_at_texts,
    texts_end_completions_where_they_are_looked_for,
    an_episode_has_room_for_replies,
)
