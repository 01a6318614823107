"""Talk with a model in the terminal, or let programs talk with it.

    python recipes/serve.py model.path=outputs/r1_zero/model
    python recipes/serve.py model.path=outputs/r1_zero/model chat.temperature=0 < questions.txt
    python recipes/serve.py model.path=outputs/r1_zero/model mode=endpoint endpoint.port=8000
    python recipes/serve.py --help

A pipe asks one question a line; answers go to standard output. The endpoint is vLLM's, or transformers' own.
"""

from typing import Any

from lightning_r1.config.compose import recipe


@recipe("serve")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.serve.run import serve

    serve(config)


if __name__ == "__main__":
    main()
