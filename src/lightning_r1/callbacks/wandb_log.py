"""Weights & Biases: online if somebody is logged in, offline otherwise, and never in the way."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_r1.callbacks.console import console
from lightning_r1.parallel.interruption import interruption


class RunLogger(WandbLogger):
    """Lightning's logger, whose W&B run ends with the training.

    Lightning's own leaves it open, and whatever is trained next in this process, as in a pipeline, would
    be written into it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # Lightning always gives it, and wandb warns that it means nothing

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a step."""
        with _while_it_lives():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Send a message to whoever watches the run, by mail or chat as they chose in W&B."""
        self.experiment.alert(title=title, text=text, level="WARN")

    @rank_zero_only
    def preempted(self) -> None:
        """Say that the run goes on later: W&B shows it as preempted, not as failed."""
        with _while_it_lives():
            self.experiment.mark_preempting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        super().finalize(status)
        if self._experiment is not None:
            with _while_it_lives():
                self._experiment.finish(exit_code=0 if status == "success" else 1)


@contextmanager
def _while_it_lives() -> Iterator[None]:
    """W&B's own process ends at SIGTERM, which Slurm sends to all of a job's: that must not keep the run from saving.

    What is lost so stands in ``metrics.csv``.
    """
    try:
        yield
    except Exception:
        if not interruption.wanted:
            raise


def wandb_logger(
    run_dir: Path, *, name: str, project: str = "lightning-r1", mode: str = "auto", **options: Any
) -> WandbLogger:
    """The run's W&B logger. It keeps its id across interruptions, so that one run stays one run.

    Args:
        run_dir: gets the ``wandb`` folder.
        name: of the run, and its id.
        project: in W&B.
        mode: ``auto``, ``online`` or ``offline``. ``auto`` is online with an API key (environment
            or ``wandb login``), offline without, and says how to sync.
        options: more arguments for ``wandb.init`` (entity, group, tags, ...).

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("auto", "online", "offline"):
        raise ValueError(f"logger.mode={mode!r}: expected auto, online or offline")
    offline = mode == "offline" or (mode == "auto" and not logged_in())
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours instead of a page
    if offline:
        console.print(
            f"W&B is offline{'' if mode == 'offline' else ' (not logged in)'}. "
            f"To upload this run: wandb sync {run_dir}/wandb/offline-run-*",
            soft_wrap=True,
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    return RunLogger(
        name=name,
        id=name.replace("/", "-"),
        project=project,
        save_dir=str(run_dir),
        offline=offline,
        resume="allow",
        log_model=False,
        **options,
    )


def logged_in() -> bool:
    """Whether an upload could succeed: a key in the environment, or one left by ``wandb login``."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
