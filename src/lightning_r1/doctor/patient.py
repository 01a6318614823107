"""A run's parts, each built once, when a check first asks for it, by the functions that the run itself uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

import torch

from lightning_r1.config.build import build_module, build_sets, call_with, count_steps, tokenise
from lightning_r1.config.build_engine import build_engine
from lightning_r1.config.build_policy import build_codec, build_policy
from lightning_r1.config.build_rewards import build_rewards
from lightning_r1.config.errors import ConfigError
from lightning_r1.doctor.cluster import Cluster, cluster_of
from lightning_r1.doctor.findings import NotChecked
from lightning_r1.models.codec import Codec
from lightning_r1.models.footprint import ModelSize, model_size
from lightning_r1.models.hub import HubOutOfReach
from lightning_r1.models.memory_estimate import rollout_peak, update_peak
from lightning_r1.models.policy import Policy
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.modules.phase import Phase
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Prompt, Sampling

T = TypeVar("T")


def part(name: str) -> Callable[[Callable[[Any], Any]], property]:
    """A part of the run. Whoever asks first for one that cannot be built gets the error, the others NotChecked."""

    def build_once(build: Callable[[Any], Any]) -> property:
        @wraps(build)
        def get(patient: Patient) -> Any:
            if name in patient.broken:
                raise NotChecked(f"it needs the {name}, which cannot be had (see above)")
            if name not in patient.made:
                try:
                    patient.made[name] = build(patient)
                except Exception:
                    patient.broken.add(name)
                    raise
            return patient.made[name]

        return property(get)

    return build_once


class Patient:
    """The run that is examined.

    Args:
        config: resolved, of ``conf/doctor.yaml``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options: Mapping[str, Any] = config["doctor"]
        self.kind: str = config["phase"]["kind"]
        self.made: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.out_of_reach = False
        """Whether the model is on the hub, and the hub far away."""
        self.speed: dict[str, float] = {}
        """Tokens a second that the engine check measured: ``sampled`` and ``scored``."""
        self.tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
        """Shown below the findings: a title, columns and rows."""
        self._known: dict[Any, Any] = {}
        self.update_peak: Callable[..., int] = update_peak
        self.rollout_peak: Callable[..., int] = rollout_peak

    @property
    def rolls_out(self) -> bool:
        """Whether the policy learns from its own completions."""
        return self.kind in ("rl", "distill")

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        devices = self.config["trainer"]["devices"]
        return (devices if isinstance(devices, int) and devices > 0 else 1) * self.config["trainer"]["num_nodes"]

    @property
    def on_cpu(self) -> bool:
        """Whether the run will be, as far as this machine tells."""
        return self.config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available()

    @property
    def estimates_cpu(self) -> bool:
        """Whether memory is estimated for a CPU: a GPU that is asked about need not be here."""
        return self.on_cpu and self.options["gpu"] in ("here", "cpu")

    @property
    def cluster(self) -> Cluster | None:
        """The devices of the run, where their speed is said."""
        return cluster_of(self.options, self.ranks)

    @property
    def evaluation_sampling(self) -> Sampling:
        """How the evaluation sets are sampled."""
        return call_with(self.config["eval"]["sampling"])

    def remembered(self, key: Any, find_out: Callable[[], T]) -> T:
        """What was found out about something, once."""
        if key not in self._known:
            self._known[key] = find_out()
        return self._known[key]

    @part("tokenizer")
    def codec(self) -> Codec:
        """Template and the model's tokenizer; a model on the hub may be out of reach."""
        try:
            return build_codec(self.config)
        except ConfigError as error:
            if not isinstance(error.__cause__, HubOutOfReach):
                raise
            path, self.out_of_reach = self.config["model"]["path"], True
            raise NotChecked(f"the model {path} cannot be reached from here", "ask again where it can") from error

    @part("template")
    def template_codec(self) -> Codec:
        """The same; where the model is out of reach the template with a stand-in, good for texts but not for ids."""
        try:
            return self.codec
        except NotChecked:
            if not self.out_of_reach:
                raise
            return Codec(call_with(self.config["template"]), number_tokenizer())

    @property
    def codec_is_real(self) -> bool:
        """Whether token ids are the model's."""
        return "tokenizer" in self.made

    @part("data")
    def data(self) -> Any:
        """The data module with its rows read, of each source the first ``doctor.limit`` if that is said."""
        codec = self.template_codec
        module, limit = call_with(self.config["data"]), self.options["limit"]
        if not self.codec_is_real and hasattr(module, "max_prompt_tokens"):
            module.max_prompt_tokens = 2**62  # the stand-in's tokens are characters
        if limit is not None:
            for name in ("rows", "general_rows"):
                if isinstance(getattr(module, name, None), Iterable):
                    setattr(module, name, itertools.islice(getattr(module, name), limit))
            if isinstance(getattr(module, "sources", None), Mapping):
                module.sources = {name: itertools.islice(rows, limit) for name, rows in module.sources.items()}
        if self.kind != "reward_model":
            tokenise(self.config, module, codec)
        return module

    @part("evaluation sets")
    def sets(self) -> dict[str, list[Prompt]]:
        """The evaluation sets."""
        return {} if self.kind == "reward_model" else build_sets(self.config, self.template_codec)

    @part("rewards")
    def rewards(self) -> RewardSuite:
        """The rewards, started: they have proven themselves."""
        suite = build_rewards(self.config, self.template_codec)
        suite.start()
        return suite

    @part("model")
    def hollow(self) -> Policy:
        """The policy without weights, in the type that it will be trained in."""
        assert self.codec  # if there is none, there is no model either
        policy = build_policy(self.config, hollow=True)[1]
        return policy.to(torch.bfloat16) if self.config["trainer"]["precision"] == "bf16-true" else policy

    @property
    def size(self) -> ModelSize:
        """Of the policy as it will be loaded."""
        return model_size(self.hollow, four_bit=self.config["model"].get("adapter") == "qlora")

    @part("run")
    def module(self) -> Phase:
        """The phase's module around the hollow policy: it knows the plan."""
        policy, codec = self.hollow, self.codec
        engine = build_engine(self.config, policy, codec)
        rewards = self.rewards if self.rolls_out else None
        return build_module(self.config, policy, codec, engine, self.data, rewards)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return count_steps(self.config, self.data)

    def close(self) -> None:
        """Let go of what the rewards hold."""
        if "rewards" in self.made:
            self.made["rewards"].close()
