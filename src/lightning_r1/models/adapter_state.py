"""What is stored of a model with an adapter: the adapter alone, and which base it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_r1.models.adapter import TRAINED, adapter_config, is_adapters
from lightning_r1.models.merging import as_whole


def keep_only_adapter(module: nn.Module) -> None:
    """From now on the module's ``state_dict`` holds no weight of the base, and loading asks for none."""
    module.register_state_dict_post_hook(_without_base)
    module.register_load_state_dict_post_hook(_base_is_there)


def check_base(made_on: Mapping[str, str] | None, own: Mapping[str, str] | None) -> None:
    """Refuse to put a checkpoint on another base than it was made on; the folder may have moved.

    Raises:
        ValueError: names both and what to do.
    """
    if (made_on or {}).get("fingerprint") == (own or {}).get("fingerprint"):
        return
    if made_on is None or own is None:
        held, run = ("an adapter", "none") if own is None else ("a whole model", "one")
        raise ValueError(f"model.adapter: the checkpoint holds {held}, this run trains {run}. Choose another name=.")
    raise ValueError(
        f"model.path={own['path']}: the checkpoint's adapter stands on another base ({made_on['path']}, "
        f"{made_on['fingerprint']}; this one is {own['fingerprint']}). Give it that base, or choose another name=."
    )


def _without_base(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(prefix) and not is_adapters(name)]:
        del state[name]


def _base_is_there(module: nn.Module, keys: Any) -> None:
    own = {name for name in _all_names(module) if not is_adapters(name)}
    keys.missing_keys[:] = [name for name in keys.missing_keys if not _ends_in(name, own)]


def _all_names(module: nn.Module) -> Iterator[str]:
    yield from (name for name, _ in module.named_parameters(remove_duplicate=False))
    yield from (name for name, _ in module.named_buffers(remove_duplicate=False))


def _ends_in(name: str, known: set[str]) -> bool:
    """Whether a name is one of those known, whatever stands before it."""
    parts = name.split(".")
    return any(".".join(parts[start:]) in known for start in range(len(parts)))


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The adapter that trains, whole and in the host's memory, by the names of PEFT's files. Collective if sharded."""
    return {
        f"base_model.model.{name.replace(f'.{TRAINED}.', '.')}": as_whole(parameter).cpu().contiguous()
        for name, parameter in model.named_parameters()
        if is_adapters(name) and f".{TRAINED}." in name
    }


def save_adapter(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor]) -> None:
    """Write the adapter in PEFT's format; its folder is made."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    adapter_config(model).save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
