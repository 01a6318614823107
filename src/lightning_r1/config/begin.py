"""What a job of a cluster has to know before its nodes start: the run's folder.

``python -m lightning_r1.config.begin VERB [--value KEY]... OVERRIDE...`` composes the config, so that a mistake is one
line before any node works, makes the run's folder ready for the job's log (``slurm/``), and prints the folder, then
each value, a line each. With ``resume=never`` the old folder is moved aside here, once, and not by each rank.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from lightning_r1.config.compose import compose_config, one_line_errors
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import JOB_LOGS, get

VERBS = ("train", "sample", "teach", "evaluate")


def begin(verb: str, overrides: Sequence[str], values: Sequence[str] = ()) -> list[str]:
    """Make the run's folder ready.

    Args:
        verb: whose config it is.
        overrides: as for the recipe.
        values: keys whose values are wanted too.

    Returns:
        The folder and the values.

    Raises:
        ConfigError: for a verb that is no job, or a config that does not compose.
    """
    if verb not in VERBS:
        raise ConfigError(f"VERB={verb}: choose one of {', '.join(VERBS)}")
    config = compose_config(verb, overrides)
    run_dir = Path(config["paths"]["run_dir"])
    if config["resume"] == "never":
        # late: they stand on torch, and few jobs begin anew
        from lightning_r1.config.folder_lock import hold
        from lightning_r1.config.run_folder import move_aside

        with hold(run_dir):
            move_aside(run_dir)
    (run_dir / JOB_LOGS).mkdir(parents=True, exist_ok=True)
    return [str(run_dir), *(str(get(config, key)) for key in values)]


def main(arguments: Sequence[str]) -> None:
    """The command."""
    verb, *rest = arguments
    values = []
    while rest[:1] == ["--value"]:
        values.append(rest[1])
        rest = rest[2:]
    with one_line_errors():
        with redirect_stdout(sys.stderr):  # what is told to people
            answers = begin(verb, rest, values)
        sys.stdout.write("\n".join(answers) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
