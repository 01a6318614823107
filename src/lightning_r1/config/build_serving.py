"""From a resolved config to a model that answers, or to the command of a server that does."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lightning_r1.config.build import check
from lightning_r1.config.build_policy import build_codec, loading
from lightning_r1.config.errors import ConfigError
from lightning_r1.models.answering import Answerer, Habits
from lightning_r1.models.asked import reasoning_parser, shows_system_message
from lightning_r1.models.load import load_model, stored_dtype
from lightning_r1.models.tokenizer import load_tokenizer
from lightning_r1.models.turns import opening
from lightning_r1.text.tags import Tags

_NEEDS = {"vllm": ("vllm",), "transformers": ("fastapi", "openai", "uvicorn")}
_INSTALL = {"vllm": "pip install 'lightning-r1[vllm]'", "transformers": "pip install 'lightning-r1[serve]'"}


def check_serving(config: Mapping[str, Any]) -> None:
    """What can be known to be wrong before a model is loaded.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    _check_folder(config["model"]["path"])
    check(config)
    for key, choices in {"mode": ("chat", "endpoint"), "device": ("auto", "cpu", "cuda")}.items():
        if config[key] not in choices:
            raise ConfigError(f"{key}={config[key]}: choose one of {', '.join(choices)}")
    if config["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no CUDA GPU here; device=cpu")
    chat = config["chat"]
    if chat["temperature"] is not None and chat["temperature"] < 0:
        raise ConfigError(f"chat.temperature={chat['temperature']}: expected >= 0, where 0 is greedy")
    if chat["top_p"] is not None and not 0 < chat["top_p"] <= 1:
        raise ConfigError(f"chat.top_p={chat['top_p']}: expected a share above 0, up to 1")
    if chat["max_new_tokens"] is not None and chat["max_new_tokens"] < 1:
        raise ConfigError(f"chat.max_new_tokens={chat['max_new_tokens']}: expected >= 1, or null")


def _check_folder(path: str | None) -> None:
    """What a person takes for the model's folder, and is not."""
    if path is None:
        raise ConfigError("model.path=None: random weights answer nothing; set it to a folder or hub id")
    folder = Path(path)
    if (folder / "config.json").is_file():
        architectures = json.loads((folder / "config.json").read_text()).get("architectures") or [""]
        if architectures[0].endswith("ForSequenceClassification"):
            raise ConfigError(f"model.path={path}: that is a reward model, which answers nothing; give a policy's")
    elif (folder / "adapter_config.json").is_file():
        raise ConfigError(f"model.path={path}: that is an adapter alone; the merged model is {folder.parent / 'model'}")
    elif (folder / "model" / "config.json").is_file():
        raise ConfigError(f"model.path={path}: that is a run's folder; its model is model.path={folder / 'model'}")
    else:
        for run in (folder, folder.parent):
            if (run / "config.yaml").is_file() and (run / "checkpoints").is_dir():
                raise ConfigError(
                    f"model.path={path}: {run} is a run that is not finished; write the model of its newest checkpoint "
                    f"with python recipes/export.py run={run}"
                )


def build_answerer(config: Mapping[str, Any]) -> tuple[Answerer, Tags]:
    """The model, loaded, and the tags around its thinking.

    Raises:
        ConfigError: if it cannot be loaded, was trained under another template, or has no chat template.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    model, path = config["model"], config["model"]["path"]
    tags = Tags()
    with loading(path):
        tokenizer = load_tokenizer(path)
        if config.get("template") is not None:
            template = build_codec(config).template
            tokenizer.chat_template, tags = template.chat_template(bos=opening(tokenizer)), template.tags
        if not tokenizer.chat_template:
            raise ConfigError(
                f"model.path={path}: it has no chat template; say how it is asked, for a base template=r1_zero"
            )
        loaded = load_model(path, dtype=model["dtype"] or stored_dtype(path), attention=model["attention"])
    answerer = Answerer(loaded, tokenizer)
    if config["chat"]["system"] is not None and not shows_system_message(tokenizer):
        raise ConfigError("chat.system: this model's chat template has no place for a system message; leave it out")
    device = "cuda" if config["device"] == "auto" and torch.cuda.is_available() else config["device"]
    answerer.model.to("cpu" if device == "auto" else device)  # type: ignore[arg-type]
    return answerer, tags


def habits_of(config: Mapping[str, Any], answerer: Answerer) -> Habits:
    """The model's own way of sampling, with what the config says instead."""
    said = {name: config["chat"][name] for name in ("temperature", "top_p") if config["chat"][name] is not None}
    return replace(answerer.habits, **said)


def server_of(config: Mapping[str, Any]) -> str:
    """``vllm`` or ``transformers``.

    Raises:
        ConfigError: for another one, or one that is not installed.
    """
    server = config["endpoint"]["server"]
    if server not in (*_NEEDS, "auto"):
        raise ConfigError(f"endpoint.server={server}: choose one of auto, {', '.join(_NEEDS)}")
    missing = {name: [part for part in parts if not importlib.util.find_spec(part)] for name, parts in _NEEDS.items()}
    if server == "auto":
        ready = [name for name in _NEEDS if not missing[name]]
        if not ready:
            raise ConfigError(
                f"mode=endpoint: no server is installed; {_INSTALL['vllm']} (fast, on a GPU), or "
                f"{_INSTALL['transformers']}"
            )
        return ready[0]
    if missing[server]:
        raise ConfigError(
            f"endpoint.server={server}: {', '.join(missing[server])} cannot be imported here; {_INSTALL[server]}"
        )
    return str(server)


def endpoint_command(config: Mapping[str, Any]) -> list[str]:
    """The command line of a server for the model.

    Raises:
        ConfigError: if there is no server, nobody can listen where it should, or the model has no chat template.
    """
    server, endpoint, path = server_of(config), config["endpoint"], config["model"]["path"]
    if config.get("template") is not None:
        raise ConfigError(
            f"template={config['template']['name']}: an endpoint asks as the model's folder says; leave it out"
        )
    with loading(path):
        tokenizer = load_tokenizer(path)
    if not tokenizer.chat_template:
        raise ConfigError(
            f"model.path={path}: it has no chat template, so no server can ask it; train it, or export it, with this "
            "project, or talk with it here: mode=chat template=r1_zero"
        )
    _check_port(endpoint["host"], endpoint["port"])
    where = ["--host", str(endpoint["host"]), "--port", str(endpoint["port"])]
    dtype = ["--dtype", config["model"]["dtype"]] if config["model"]["dtype"] else []
    more = [str(flag) for flag in endpoint["more"]]
    if server == "transformers":
        device = ["--device", config["device"]]
        return [
            sys.executable,
            "-m",
            "transformers.cli.transformers",
            "serve",
            str(path),
            *where,
            *dtype,
            *device,
            *more,
        ]
    named = ["--served-model-name", model_name(config)]
    # by its module: not every build of vLLM has the command `vllm serve`
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(path)]
    parser = reasoning_parser(tokenizer)
    reasoning = ["--reasoning-parser", parser] if parser else []
    return [*program, *named, *reasoning, *where, *dtype, *more]


def model_name(config: Mapping[str, Any]) -> str:
    """What the model is called in requests: the run's name for a run's model, else the folder's or hub's."""
    path = Path(config["model"]["path"])
    folder = path.parent if path.name == "model" else path
    return config["endpoint"]["name"] or (folder.resolve().name if path.exists() else str(path))


def _check_port(host: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"endpoint.host={host}, endpoint.port={port}: nobody can listen there ({error}); choose another port"
        ) from error
