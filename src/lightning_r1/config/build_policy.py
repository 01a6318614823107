"""From a resolved config to the model with its tokenizer and template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import get
from lightning_r1.data.lessons import other_tokenizer
from lightning_r1.models.adapter import add_adapter
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import read_card
from lightning_r1.models.hub import HubError
from lightning_r1.models.identity import Base, vocabulary_hash
from lightning_r1.models.load import build_model, hollow_model, load_model
from lightning_r1.models.policy import Policy
from lightning_r1.models.saving import checkpoint_activations
from lightning_r1.models.tokenizer import load_tokenizer, number_tokenizer


def build_codec(config: Mapping[str, Any]) -> Codec:
    """The model's tokenizer with the template.

    Raises:
        ConfigError: if there is no model to load, or it was trained under another template.
    """
    path = config["model"]["path"]
    template = instantiate(config["template"], _convert_="all")
    if path is None:
        return Codec(template, number_tokenizer())
    with loading(path):
        codec = Codec(template, load_tokenizer(path))
    made_under = read_card(path).get("template_fingerprint", codec.fingerprint())
    if made_under != codec.fingerprint():
        raise ConfigError(
            f"template={template.name}: {path} was trained under another template ({made_under}, this one is "
            f"{codec.fingerprint()}); choose the one it was trained with"
        )
    return codec


def build_policy(config: Mapping[str, Any], *, hollow: bool = False) -> tuple[Codec, Policy]:
    """The model with its tokenizer and template; see :func:`build_codec`.

    Args:
        config: resolved.
        hollow: without weights, on the ``meta`` device: for who only asks what it would be, and for ranks that get
            slices of them later, from what the policy's ``make`` gives.
    """
    model, codec = config["model"], build_codec(config)
    options = {name: model[name] for name in ("dtype", "attention", "dropout")} | {"computes_in": computes_in(config)}
    kind, context = model.get("adapter"), model.get("context")
    if model["path"] is None:
        with torch.device("meta") if hollow else nullcontext():
            made = build_model(model["architecture"], codec.tokenizer, **options)
    else:
        with loading(model["path"]):
            made = (
                hollow_model(model["path"], context=context, **options)
                if hollow
                else load_model(model["path"], context=context, four_bit=kind == "qlora", **options)
            )
    base = None
    if kind:
        add_adapter(made, instantiate(config["adapter"], _convert_="all"), base=model["path"])
        base = Base(str(model["path"]))
    checkpoint_activations(made, model.get("activation_checkpointing", False))
    policy = Policy(made, compiled=model.get("compile", False), base=base)
    if hollow:
        policy.make = drawing_as_now(lambda: build_policy(config)[1])
    return codec, policy


def computes_in(config: Mapping[str, Any]) -> str:
    """The type of activations: of the weights, or what the precision of the run makes of them."""
    if get(config, "parallel.mixed_precision") == "bf16" or get(config, "trainer.precision") == "bf16-true":
        return "bfloat16"
    return str(config["model"]["dtype"])


def drawing_as_now(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """``make``, which finds torch's random numbers as they are now, and leaves them as they are then."""
    now = torch.get_rng_state()

    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(now)
            return make()

    return made


@contextmanager
def loading(path: str) -> Iterator[None]:
    """Say in one line what transformers says in many."""
    try:
        yield
    except HubError as error:
        raise ConfigError(f"model.path={error}") from error
    except OSError as error:
        raise ConfigError(
            f"model.path={path}: it cannot be loaded ({str(error).splitlines()[0]}); set it to a folder with a whole "
            "model, or to a hub id that can be reached"
        ) from error


def build_teacher(config: Mapping[str, Any], codec: Codec, *, hollow: bool = False) -> Policy:
    """The model at ``teacher`` to learn from.

    Args:
        config: resolved.
        codec: of the student.
        hollow: as in :func:`build_policy`.

    Raises:
        ConfigError: if it has another tokenizer than the student, or was trained under another template.
    """
    path = config["teacher"]["path"]
    its, own = vocabulary_hash(load_tokenizer(path)), vocabulary_hash(codec.tokenizer)
    if its != own:
        raise ConfigError(other_tokenizer(f"teacher.path={path}: it", its, codec, own))
    return build_policy({**config, "model": config["teacher"]}, hollow=hollow)[1]
