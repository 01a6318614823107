"""Draw a run's curves and show its completions early and late.

python recipes/report.py run=outputs/mini/r1_zero
"""

from pathlib import Path
from typing import Any

from lightning_r1.config.compose import recipe


@recipe("report")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for matplotlib."""
    from lightning_r1.report import show

    show(Path(config["run"]))


if __name__ == "__main__":
    main()
