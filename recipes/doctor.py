"""Examine a run before it is started: everything but the training.

    python recipes/doctor.py experiment=mini_r1_zero
    python recipes/doctor.py experiment=r1_zero_countdown trainer.devices=8 doctor.memory_gib=80
    python recipes/doctor.py --help

Takes what recipes/train.py takes; exits with 1 if the run would fail.
"""

import sys
from typing import Any

from lightning_r1.config.compose import recipe


@recipe("doctor")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.doctor.run import doctor, is_fit

    if not is_fit(doctor(config)):
        sys.exit(1)


if __name__ == "__main__":
    main()
