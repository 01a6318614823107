"""Train one phase.

    python recipes/train.py experiment=mini_r1_zero
    python recipes/train.py phase=r1_zero model=qwen2_5_1_5b data=countdown trainer.max_steps=500
    python recipes/train.py --help

The same command again goes on where the run stopped.
"""

from pathlib import Path
from typing import Any

from lightning_r1.config.compose import recipe


@recipe("train")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.config.ending import tell_training
    from lightning_r1.report.console import leave_report
    from lightning_r1.train import train

    if summary := train(config):  # the first rank's
        leave_report(Path(config["paths"]["run_dir"]))
        tell_training(config, summary)


if __name__ == "__main__":
    main()
