"""The source of a run: its commit and what differs from it can be put together again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lightning_r1.callbacks import source_state
from lightning_r1.callbacks.source_state import difference, save_sources, source_root


def git(folder: Path, *arguments: str) -> str:
    known = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *known, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("one = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


class Saved:
    """Stands for a W&B run: its folder, and what it was asked to keep."""

    def __init__(self, folder: Path) -> None:
        self.dir, self.files = str(folder / "files"), list[str]()

    def save(self, file: str, base_path: str, policy: str) -> None:
        assert Path(file).is_relative_to(base_path)
        self.files.append(Path(file).name)


def test_the_difference_makes_the_source_out_of_its_commit(tmp_path: Path) -> None:
    there = repository(tmp_path / "there")
    assert difference(there) == b""
    (there / "code.py").write_text("one = 2\n")
    (there / "new.py").write_text("")
    git(there, "add", "code.py")  # whether it is staged or not
    found = difference(there)
    assert found.startswith(b"# not in git: new.py\n")
    git(there, "checkout", "-q", "HEAD", "--", ".")
    (tmp_path / "diff.patch").write_bytes(found)
    git(there, "apply", str(tmp_path / "diff.patch"))
    assert (there / "code.py").read_text() == "one = 2\n"


def test_the_packages_repository_comes_first_then_the_one_that_one_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, mine = repository(tmp_path / "ours"), repository(tmp_path / "mine")
    monkeypatch.setattr(source_state, "__file__", str(ours / "source_state.py"))
    monkeypatch.chdir(mine)
    assert source_root() == str(ours)
    run = Saved(tmp_path)
    save_sources(run)
    assert run.files == []  # nothing differs
    for folder in (ours, mine):
        (folder / "code.py").write_text(f"# {folder.name}\n")
    save_sources(run)
    assert run.files == ["diff.patch", "diff_mine.patch"]
    assert "+# ours" in (tmp_path / "files" / "diff.patch").read_text()
    assert "+# mine" in (tmp_path / "files" / "diff_mine.patch").read_text()


def test_without_a_repository_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_state, "__file__", str(tmp_path / "source_state.py"))
    monkeypatch.chdir(tmp_path)
    run = Saved(tmp_path)
    save_sources(run)
    assert (source_root(), run.files) == (None, [])
