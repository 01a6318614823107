"""Sample a model's completions and keep the traces worth learning from, or the pairs that a judge tells apart.

    python recipes/sample.py sample=cold_start model.path=outputs/r1_zero/model data.rows.path=problems.jsonl
    python recipes/sample.py sample=rejection_sampling model.path=outputs/reasoning_rl/model data=countdown
    python recipes/sample.py sample=label_pairs model.path=RUN/model data=helpful_prompts \
        sample.pairs.judge.client.base_url=http://host:8000/v1 sample.pairs.judge.client.model=judge
    python recipes/sample.py --help

The same command again goes on where the job stopped.
"""

from typing import Any

from lightning_r1.config.compose import recipe


@recipe("sample")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.sample import sample

    sample(config)


if __name__ == "__main__":
    main()
