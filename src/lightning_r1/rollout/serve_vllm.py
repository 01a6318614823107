"""Start a vLLM server that a trainer can sample from, and send weights to.

``python -m lightning_r1.rollout.serve_vllm MODEL [--host 127.0.0.1] [--port 8000] [--weights http|nccl] [more]``
becomes vLLM's OpenAI-compatible server with the right flags; ``more`` goes to it as it is
(``--tensor-parallel-size 8``). By its module, for ``vllm serve`` is not in every build of vLLM.

The update of weights and the call of worker methods are among vLLM's development routes, which anybody who reaches
the port may use: listen on 127.0.0.1 or a private network only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

from lightning_r1.rollout.vllm_worker import EXTENSION

WEIGHTS = ("http", "nccl")


def serve_command(
    model: str, *more: str, host: str = "127.0.0.1", port: int = 8000, weights: str = "http"
) -> list[str]:
    """The command line; run it with :func:`serve_environment`.

    Args:
        model: a folder or hub id, the one that the trainer starts from.
        more: flags for vLLM.
        host: to listen on.
        port: to listen on.
        weights: how they come: ``http`` works everywhere, ``nccl`` from GPU to GPU.

    >>> serve_command("org/model", "--seed", "1")[2:7]
    ['vllm.entrypoints.openai.api_server', '--model', 'org/model', '--host', '127.0.0.1']
    """
    flags = [
        *("--host", host, "--port", str(port)),
        *("--logprobs-mode", "processed_logprobs"),
        *("--generation-config", "vllm"),  # no habits that came with the weights
        *("--worker-extension-cls", EXTENSION),
        "--enable-prefix-caching",
        "--skip-tokenizer-init",
        "--enable-scale-out",  # token ids in, token ids out
        "--disable-uvicorn-access-log",
    ]
    if weights == "nccl":
        flags += ["--weight-transfer-config", json.dumps({"backend": "nccl"})]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *flags, *more]


def serve_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """With the routes by which weights are updated."""
    return {"VLLM_LOGGING_LEVEL": "WARNING", **environment, "VLLM_SERVER_DEV_MODE": "1"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server."""
    parser = argparse.ArgumentParser(prog="python -m lightning_r1.rollout.serve_vllm", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--weights", choices=WEIGHTS, default="http")
    known, more = parser.parse_known_args(arguments)
    command = serve_command(known.model, *more, host=known.host, port=known.port, weights=known.weights)
    os.execve(command[0], command, serve_environment(os.environ))


if __name__ == "__main__":
    main()
