r"""Low-rank adapters: the base is frozen, and beside each of its products a small one learns.

.. math:: y = W x + \frac{\alpha}{r} B A x, \qquad A \in R^{r \times in},\; B \in R^{out \times r}

(LoRA, arXiv 2106.09685, eq. 3). *B* begins at 0, so that the adapted model begins as the base. The layers are PEFT's,
put into the transformers model where its linear layers were: everything that calls the model goes on as before, and
sees the adapter. QLoRA (arXiv 2305.14314) is the same over a base whose linear layers are stored in four bits, see
:func:`lightning_r1.models.load.load_model`.

The adapter's weights have the type of the model, and steps on them are exact where the optimizer keeps masters. Norms
and embeddings stay frozen, in the type that they were loaded in.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

AdapterKind = Literal["lora", "qlora"]
INSTALL = "pip install 'lightning-r1[lora]'"
INSTALL_QLORA = "pip install 'lightning-r1[lora,bnb]'"

TRAINED = "default"
"""PEFT's name of the adapter that trains."""
_MARK = ".lora_"  # in the names of all that belongs to an adapter, and of nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What an adapter is like."""

    rank: int = 32
    """r."""
    alpha: float = 64.0
    """The product of A and B is scaled by alpha / r."""
    dropout: float = 0.0
    """Of what goes into A; RL wants 0."""
    targets: str | Sequence[str] = "all-linear"
    """Names of the layers that are adapted, e.g. ``[q_proj, v_proj]``; ``all-linear`` is all but the output head."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.rank < 1:
            raise ValueError(f"adapter.rank={self.rank}: expected >= 1, e.g. 32")
        if self.alpha <= 0:
            raise ValueError(f"adapter.alpha={self.alpha}: expected > 0, e.g. twice adapter.rank={self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"adapter.dropout={self.dropout}: expected a share in [0, 1)")
        if not self.targets or (isinstance(self.targets, str) and self.targets != "all-linear"):
            raise ValueError(f"adapter.targets={self.targets!r}: expected all-linear, or a list like [q_proj, v_proj]")


def add_adapter(model: PreTrainedModel, settings: AdapterSettings, *, base: str | None = None) -> None:
    """Freeze a model and put an adapter into it, in place; A is drawn from torch's current seed.

    Args:
        model: of any device, ``meta`` too; its linear layers may be stored in four bits.
        settings: of the adapter.
        base: where the model came from, for who loads the adapter one day.

    Raises:
        ValueError: for targets that the model has not, or that are its embeddings or its head.
    """
    quiet_bitsandbytes()
    from peft import LoraConfig

    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    model.requires_grad_(False)
    try:
        inject(
            model,
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a number is all that it is
                lora_dropout=settings.dropout,
                target_modules=targets,
                task_type="CAUSAL_LM",
                base_model_name_or_path=base,
            ),
            TRAINED,
        )
    except ValueError as error:
        raise ValueError(f"adapter.targets={targets}: {str(error).splitlines()[0]}") from error
    for ends in (model.get_input_embeddings(), model.get_output_embeddings()):
        if ends is not None and _is_adapted(ends):
            raise ValueError(
                f"adapter.targets={targets}: embeddings and output head cannot be adapted, their weights are read as "
                "they are; leave them out, or take all-linear"
            )
    for _, layer in adapted_layers(model):
        layer.lora_A.to(model.dtype)
        layer.lora_B.to(model.dtype)


def inject(model: PreTrainedModel, config: Any, name: str) -> None:
    """Put the layers of PEFT's config into a model, under a name."""
    from peft import inject_adapter_in_model

    # PEFT moves what it makes to the base's device, but not a second adapter to meta
    hollow = torch.device("meta") if model.device.type == "meta" else nullcontext()
    with hollow, warnings.catch_warnings():
        # that there are two is meant, and that GPT-2's matrices are transposed is taken care of
        warnings.filterwarnings("ignore", "Already found a `peft_config`|fan_in_fan_out is set to False")
        inject_adapter_in_model(config, model, name)


def quiet_bitsandbytes() -> None:
    """No word of a faster kernel that it lacks; PEFT imports it wherever it is installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by name."""
    for name, module in model.named_modules():
        if _is_adapted(module):
            yield name, module


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def is_plain_adapter(module: nn.Module) -> bool:
    """Whether a layer is a product of floating-point numbers with a low-rank one beside it, and nothing else."""
    kind = type(module)
    return _is_adapted(module) and (kind.__module__, kind.__name__) == ("peft.tuners.lora.layer", "Linear")


def has_adapter(model: nn.Module) -> bool:
    """Whether any layer of a model is adapted."""
    return any(True for _ in adapted_layers(model))


def is_adapters(name: str) -> bool:
    """Whether a weight of this name belongs to an adapter.

    >>> is_adapters("layers.0.q_proj.lora_A.default.weight"), is_adapters("layers.0.q_proj.base_layer.weight")
    (True, False)
    """
    return _MARK in name


def trained_pair(layer: Any) -> tuple[Tensor, Tensor, float]:
    """A ``[r, in]``, B ``[out, r]`` and alpha / r of an adapted layer."""
    return layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight, float(layer.scaling[TRAINED])


def adapter_config(model: Any) -> Any:
    """PEFT's config of the adapter that trains; has ``save_pretrained``."""
    return model.peft_config[TRAINED]


def trainable_parameters(model: nn.Module) -> int:
    """How many parameters train; a model on ``meta`` will do."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_operations(model: nn.Module) -> int:
    """Floating-point operations of forward and backward, a token: frozen weights need no gradient of their own."""
    return sum((6 if p.requires_grad else 4) * numel(p) for p in model.parameters())


def numel(parameter: Tensor) -> int:
    """Entries of a parameter; of one in four bits, those that it stands for."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
