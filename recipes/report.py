"""Write a run's or a pipeline's report, one page to keep or to send; or what two runs differ in.

python recipes/report.py run=outputs/mini
python recipes/report.py run=outputs/mini/r1_zero
python recipes/report.py run=outputs/mini/reasoning_rl against=outputs/mini/no_language_reward
"""

from pathlib import Path
from typing import Any

from lightning_r1.config.compose import recipe


@recipe("report")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for rich."""
    from lightning_r1.report.console import show

    show(Path(config["run"]), Path(config["against"]) if config["against"] else None)


if __name__ == "__main__":
    main()
