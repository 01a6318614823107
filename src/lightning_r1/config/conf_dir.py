"""Where the configs lie, and what they offer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lightning_r1.config.errors import ConfigError

ROOT = Path(__file__).parents[3]
"""The repository: the package is installed from it, editable, as configs and recipes lie beside it."""
CONF = ROOT / "conf"


@contextmanager
def conf_dir() -> Iterator[None]:
    """Hydra's search path; a recipe that is running has one already.

    Raises:
        ConfigError: if the configs are not there.
    """
    if not CONF.is_dir():
        raise ConfigError(f"{CONF} is not there: configs lie in the repository; in it, say pip install --editable .")
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def choices(group: str) -> list[str]:
    """The files of a group, as ``group=choice`` names them; of experiments also those in folders, but for ``base``."""
    folder = CONF / group
    files = folder.rglob("*.yaml") if group == "experiment" else folder.glob("*.yaml")
    names = [file.relative_to(folder).with_suffix("") for file in files]
    return sorted(name.as_posix() for name in names if "base" not in name.parts[:-1])


def groups() -> list[str]:
    """Every group, also those within others: ``sample`` and ``sample/judge``; not what files of a group share."""
    names = [path.relative_to(CONF) for path in CONF.rglob("*") if path.is_dir()]
    return sorted(name.as_posix() for name in names if name.name != "base" and name.parent.name != "experiment")
