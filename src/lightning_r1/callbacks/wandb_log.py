"""Weights & Biases: online if somebody is logged in, offline otherwise, and never in the way.

Nothing that W&B does can stop a run or hold it up: a server that cannot be reached makes the run an offline one, what
fails later is told once and counted, and the end waits no longer than it was told to. All numbers stand in
``metrics.csv`` besides.
"""

from __future__ import annotations

import inspect
import netrc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_r1.callbacks.console import console
from lightning_r1.callbacks.source_state import save_sources, source_root
from lightning_r1.callbacks.wandb_artifacts import Product, make_artifact
from lightning_r1.callbacks.wandb_background import Background, finish_within
from lightning_r1.callbacks.wandb_id import run_id
from lightning_r1.callbacks.wandb_tables import GrowingTables
from lightning_r1.parallel.interruption import Interrupted, interruption

STEP = "global_step"
MODES, ARTIFACTS = ("auto", "online", "offline"), ("none", "reference", "upload")
# a cause that comes and goes does not send a message each time
_ALERT_EVERY, _TITLE = timedelta(minutes=15), 63
_PREEMPTED_S = 15.0  # that the end of an interrupted run waits for uploads: the job has to be requeued in time


class RunLogger(WandbLogger):
    """The W&B run of one run of ours: begun once, resumed under the same id, and ended when ours ends.

    Lightning's own leaves it open, and whatever is trained next in this process, as in a pipeline, would be written
    into it.

    Args:
        run_dir: gets the ``wandb`` folder.
        offline: keep it here.
        finish_s: seconds that the end waits for uploads.
        artifacts: what is told of models and traces: ``none``, ``reference`` (that and where they are) or ``upload``.
        options: for ``wandb.init``.
    """

    staged: str | None = None  # where W&B was last told to keep what it has to upload

    def __init__(
        self, run_dir: Path, *, offline: bool, finish_s: float = 600, artifacts: str = "none", **options: Any
    ) -> None:
        super().__init__(save_dir=str(run_dir), offline=offline, **options)
        self._wandb_init.pop("anonymous", None)  # Lightning always gives it, and wandb warns that it means nothing
        self.run_dir, self.finish_s, self.artifacts = run_dir, finish_s, artifacts
        self.tables = GrowingTables(run_dir / "wandb" / "tables.json", axis=STEP)
        self.failures = 0
        self._background = Background()
        self._preempted = self._over = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun when it is first asked for."""
        if self._experiment is None:
            self._id = self._wandb_init["id"] = run_id(self.run_dir, str(self._name))
            _stage_in(self.run_dir)
            self._experiment = self._begin()
            with self._harmless("describe the run"):
                _define_axes(self._experiment)
                save_sources(self._experiment)
        return self._experiment

    def _begin(self) -> Any:
        import wandb

        try:
            run = wandb.init(mode="offline" if self._offline else "online", **self._wandb_init)
            if not self._offline:
                console.print(f"W&B: {run.url}", soft_wrap=True)
            return run
        except Exception as error:
            wandb.teardown()  # what was begun holds the id
            if self._offline:
                console.print(f"W&B does not start ({_first_line(error)}); numbers are in metrics.csv", soft_wrap=True)
                return wandb.init(mode="disabled")
            console.print(f"W&B cannot be reached ({_first_line(error)}): {_sync(self.run_dir)}", soft_wrap=True)
            self._offline = True
            return self._begin()

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """The run's config."""
        with self._harmless("log the config"):
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers of a step."""
        numbers = {name: value for name, value in metrics.items() if name != "epoch"}
        with self._harmless("log numbers"):
            self.experiment.log(numbers if step is None else {**numbers, STEP: step})

    @rank_zero_only
    def grow_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, step: int) -> None:
        """Add rows to a table of the run; what is in it stays."""
        self._beside("log a table", lambda run: self.tables.grow(run, name, columns, rows, step=step))

    @rank_zero_only
    def start_at(self, step: int) -> None:
        """Go on behind this step: rows of later ones are made again."""
        with self._harmless("go on with the tables"):
            self.tables.start_at(step)

    @rank_zero_only
    def uses(self, product: Product) -> None:
        """Say that this run reads what another one left."""
        # run.use_artifact() waits for the server, and refuses offline; this is what it does besides
        self._tell(
            product, lambda run, artifact: run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        )

    @rank_zero_only
    def leaves(self, product: Product) -> None:
        """Say what this run has made."""
        aliases = [product.key] if product.key else None
        self._tell(product, lambda run, artifact: run.log_artifact(artifact, aliases=aliases))

    def _tell(self, product: Product, how: Callable[[Any, Any], Any]) -> None:
        if self.artifacts != "none":
            upload = self.artifacts == "upload"
            self._beside(f"log {product.name}", lambda run: how(run, make_artifact(product, upload=upload)))

    def _beside(self, what: str, task: Callable[[Any], Any]) -> None:
        """Do what asks the server beside the training."""
        with self._harmless(what):
            run = self.experiment

            def do() -> None:
                with self._harmless(what):
                    task(run)

            self._background.do(do)

    @rank_zero_only
    def alert(self, title: str, text: str, level: str = "WARN") -> None:
        """Send a message to whoever watches the run, by mail or chat as they chose in W&B."""
        with self._harmless("send an alert"):
            self.experiment.alert(title=title[:_TITLE], text=text, level=level, wait_duration=_ALERT_EVERY)

    @rank_zero_only
    def preempted(self) -> None:
        """Say that the run goes on later: W&B shows it as preempted, not as failed."""
        self._preempted = True
        with self._harmless("mark the run"):
            self.experiment.mark_preempting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The trainer has ended. Ours may go on, with the model's export, unless it failed: see :meth:`end`."""

    @rank_zero_only
    def end(self, error: BaseException | None = None) -> None:
        """End the run.

        Args:
            error: that ended it; an interruption is none to be told of.
        """
        if self._experiment is None:
            return
        if isinstance(error, Interrupted):
            if not self._preempted:
                self.preempted()
        elif isinstance(error, Exception):
            self.alert(f"run ended: {self._name}", f"{type(error).__name__}: {_first_line(error)}", level="ERROR")
        seconds = min(self.finish_s, _PREEMPTED_S) if isinstance(error, Interrupted) else self.finish_s
        started = time.monotonic()
        with self._harmless("end the run"):
            sent = self._background.finish(seconds)
            self._over = not sent
            left = max(1.0, seconds - (time.monotonic() - started))
            if not (finish_within(self._experiment, left, exit_code=0 if error is None else 1) and sent):
                said = f"W&B: not everything could be uploaded in {seconds:g} s"
                console.print(f"{said}. {_sync(self.run_dir, offline=self._offline)}", soft_wrap=True)
        if self.failures > 1:
            console.print(f"W&B: {self.failures} calls failed in all", soft_wrap=True)
        self._experiment = None

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Whatever W&B raises is told once and counted.

        Its own process ends at SIGTERM, which Slurm sends to all of a job's: nothing is told of that.
        """
        try:
            yield
        except Exception as error:
            if interruption.wanted or self._over:
                return
            self.failures += 1
            if self.failures == 1:
                said = f"W&B could not {what} ({type(error).__name__}: {_first_line(error)}); the run goes on"
                console.print(f"{said}, and all numbers are in metrics.csv", soft_wrap=True)


def _define_axes(run: Any) -> None:
    """Numbers of a rollout over rollouts, all others over optimizer steps."""
    run.define_metric(STEP)
    run.define_metric("progress/rollouts", step_metric=STEP)
    run.define_metric("rollout/*", step_metric="progress/rollouts")
    run.define_metric("*", step_metric=STEP)


def _stage_in(run_dir: Path) -> None:
    """W&B keeps copies of what it has still to upload at home, where another host may not find them."""
    if os.environ.get("WANDB_DATA_DIR") in (None, RunLogger.staged):
        os.environ["WANDB_DATA_DIR"] = RunLogger.staged = str(run_dir.resolve() / "wandb" / "data")


def wandb_logger(
    run_dir: Path,
    *,
    name: str,
    project: str = "lightning-r1",
    mode: str = "auto",
    init_timeout_s: float = 60,
    finish_timeout_s: float = 600,
    **options: Any,
) -> RunLogger:
    """The run's W&B logger. It keeps its id across interruptions, so that one run stays one run.

    Args:
        run_dir: gets the ``wandb`` folder.
        name: of the run.
        project: in W&B.
        mode: ``auto``, ``online`` or ``offline``. ``auto`` is online with an API key (environment
            or ``wandb login``), offline without, and says how to sync.
        init_timeout_s: seconds after which a server that does not answer makes the run an offline one.
        finish_timeout_s: seconds that the end waits for uploads; what is left then can be synced.
        options: of :class:`RunLogger`, and for ``wandb.init`` (entity, group, job_type, tags, ...).

    Raises:
        ValueError: for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"logger.wandb.mode={mode!r}: expected {', '.join(MODES)}")
    offline = mode == "offline" or not (mode == "online" or logged_in())
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours instead of a page
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it prints what it cannot report
    if offline:
        console.print(
            f"W&B is offline{'' if mode == 'offline' else ' (not logged in)'}. {_sync(run_dir)}", soft_wrap=True
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    import wandb

    return RunLogger(
        run_dir,
        name=name,
        project=project,
        offline=offline,
        finish_s=finish_timeout_s,
        resume="allow",
        settings=wandb.Settings(
            init_timeout=init_timeout_s,
            git_root=source_root(),
            x_transaction_log_flush_interval=1.0,  # a kill loses no more than that
        ),
        reinit="finish_previous",
        **options,
    )


def unknown_options(options: Mapping[str, Any]) -> list[str]:
    """Those that neither :func:`wandb_logger` nor ``wandb.init`` takes."""
    import wandb

    known = {*inspect.signature(wandb_logger).parameters, *inspect.signature(wandb.init).parameters, "artifacts"}
    return [name for name in options if name not in known - {"options", "run_dir", "id", "dir", "settings"}]


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


def _sync(run_dir: Path, *, offline: bool = True) -> str:
    """How to upload later what lies in the folder."""
    if offline:
        return f"To upload this run: wandb sync {run_dir}/wandb/offline-run-*"
    return f"To upload the rest: wandb sync --no-skip-online {run_dir}/wandb/run-*"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
