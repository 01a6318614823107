"""From a config to a conversation, or to a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from lightning_r1.callbacks.console import console, quiet
from lightning_r1.config.build_serving import (
    build_answerer,
    check_serving,
    endpoint_command,
    habits_of,
    model_name,
    server_of,
)
from lightning_r1.serve.batch import answer_lines
from lightning_r1.serve.chat import Chat


def serve(config: Mapping[str, Any]) -> None:
    """Talk in the terminal, answer a pipe's lines, or become a server.

    Args:
        config: resolved; see ``conf/serve.yaml``.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    check_serving(config)
    quiet()
    if config["mode"] == "endpoint":
        _become_server(config)
    answerer, tags = build_answerer(config)
    habits, options = habits_of(config, answerer), config["chat"]
    if sys.stdin.isatty():
        Chat(answerer, tags, habits, options, title=model_name(config)).run()
    else:
        answer_lines(sys.stdin, sys.stdout, answerer, tags, habits, options)


def _become_server(config: Mapping[str, Any]) -> None:
    command, endpoint = endpoint_command(config), config["endpoint"]
    name = model_name(config) if server_of(config) == "vllm" else config["model"]["path"]
    url = f"http://{endpoint['host']}:{endpoint['port']}/v1"
    console.print(
        f"OpenAI's API at {url} for the model {name}, when it says that it is up; Ctrl-C ends it.", soft_wrap=True
    )
    console.print(
        f"curl {url}/chat/completions -H 'Content-Type: application/json' -d "
        f"""'{{"model": "{name}", "messages": [{{"role": "user", "content": "..."}}]}}'""",
        style="dim",
        markup=False,
        soft_wrap=True,
    )
    sys.stdout.flush()
    os.execv(command[0], command)
