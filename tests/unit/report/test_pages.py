"""What stands in a page: the numbers without any script, nothing to fetch, and what a user is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import texts
from helpers.console import said
from helpers.run_folders import leave_pipeline, leave_run, log
from lightning_r1.config.errors import ConfigError
from lightning_r1.report import console as console_module
from lightning_r1.report import read
from lightning_r1.report.console import leave_report, show
from lightning_r1.report.difference_page import write_difference_page
from lightning_r1.report.page import as_json
from lightning_r1.report.pipeline_page import write_pipeline_page
from lightning_r1.report.run_page import write_run_page
from lightning_r1.text.records import write_jsonl

SOURCES = sorted((Path(console_module.__file__).parent / "page").iterdir())
REFUSED = (
    "http:", "https:", "//cdn", "@import", "url(h", "src=", "fetch(", "XMLHttpRequest", "WebSocket", "innerHTML",
    "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
)  # fmt: skip
ROOT = Path(__file__).parents[3]


def markup(page: Path) -> str:
    """What is there without scripts."""
    return page.read_text(encoding="utf-8").partition('<script type="application/json"')[0]


def data(page: Path) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)


def rows(page: Path) -> list[list[str]]:
    """Cells of all tables' rows."""
    found = re.findall(r"<tr>(.*?)</tr>", markup(page), re.S)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in found]


def test_a_run_says_its_numbers_without_scripts(tmp_path: Path) -> None:
    page = write_run_page(leave_run(tmp_path / "run"))
    assert page == tmp_path / "run" / "report.html"
    assert not list(tmp_path.rglob("*.partial"))
    assert "r1_zero · mini · finished, 4 steps" in markup(page)
    (tiles,) = texts(markup(page), "dl", "tiles")
    for told in ("pass@1, easy0.250 → 0.75095 %: 0.550 to 0.950", "time2 min 33 s6 tokens a second", "1.00 GiB"):
        assert told in tiles
    assert [
        "easy", "pass@1", "0.250 [0.050, 0.450] (step 0)", "0.750 [0.550, 0.950] (step 4)", "+50.0 [-41.9, +100.0]",
        "p = 0.5, noise",  # two problems of four, in one direction: 2 / 2**2
    ] in rows(page)  # fmt: skip
    assert "all 4 rollouts" in markup(page)
    assert data(page)["charts"].keys() == {"Learning", "Policy", "Time and memory", "Other numbers"}


def test_a_run_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "run", finished=False)
    with (run / "metrics.csv").open("a") as file:
        file.write("5,0.")  # being written
    page = markup(write_run_page(run))
    assert re.search(r"unfinished: step 4 of 8 \(50%\), last heard of \d{4}-\d\d-\d\d \d\d:\d\d", page)
    assert "0.250 [0.050, 0.450] (step 0)" in page
    assert "paired test" in page


def test_the_least_that_a_run_can_hold_is_enough(tmp_path: Path) -> None:
    log(tmp_path, {"step": 1, "train/loss": 2.0})
    page = write_run_page(tmp_path)
    assert "unfinished: step 1, " in markup(page)
    assert 'id="browser"' not in markup(page)
    assert [chart["title"] for chart in data(page)["charts"]["Learning"]] == ["loss"]
    log(tmp_path)
    write_run_page(tmp_path)


def test_samples_that_are_too_large_to_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = leave_run(tmp_path / "one"), leave_run(tmp_path / "other")
    assert "Not read" not in markup(write_run_page(one)) + markup(write_difference_page(one, other))
    large = one / "evaluations" / "easy-00004.jsonl"
    with large.open("a") as file:
        file.write(100 * "\n")
    monkeypatch.setattr(read, "MOST_BYTES", large.stat().st_size - 1)
    for page in (write_run_page(one), write_difference_page(one, other)):
        (told,) = [text for text in texts(markup(page), "p", "note") if text.startswith("Not read")]
        assert f"{large} (0 MiB)" in told
        assert told.count("MiB)") == 1
        assert "0.750 [0.550, 0.950]" in str(rows(page))
        assert "p = " not in markup(page).replace("from p = 0.05", "")


def test_what_the_watchdog_told_stands_at_the_top(tmp_path: Path) -> None:
    told = [0.0, 1.0, 1.0, 0.0, 1.0]
    log(tmp_path, *({"step": 10 * place, "watchdog/logprob_gap": value} for place, value in enumerate(told)))
    page = markup(write_run_page(tmp_path))
    assert "The watchdog told of logprob_gap: from step 10 to step 30; logprob_gap: from step 40 on." in page


@pytest.mark.parametrize("kept", [True, False])
def test_a_pipeline_says_its_numbers_without_scripts(kept: bool, tmp_path: Path) -> None:
    page = write_pipeline_page(leave_pipeline(tmp_path / "small", kept=kept))
    drawn, nodes = texts(markup(page), "text"), ["base", "rl"] + ["traces"] * kept
    assert [text for text in drawn if text in ("base", "rl", "traces")] == nodes
    assert drawn.count("train · done · 12.0 s") == drawn.count("pass@1 0.750 ±0.200") == 2
    assert markup(page).count('class="edge"') == (3 if kept else 1)
    for name in ("base", "rl"):
        assert f'href="{name}/report.html"' in markup(page)
        assert (tmp_path / "small" / name / "report.html").is_file()
    assert 'href="traces/report.html"' not in markup(page)
    assert ("unfinished: 2 of 3 nodes are done" if kept else "finished, 2 nodes") in markup(page)
    rl = ["rl", "0.750 [0.550, 0.950]", "+0.0 [+0.0, +0.0]", "p = 1, noise"]
    assert ("In brackets 95 % over problems. of four problems" in texts(markup(page), "p", "note")) == kept
    assert (rl in rows(page)) == kept  # without its config, nobody knows what to compare
    assert data(page)["charts"]["Learning"][0]["lines"][1]["label"] == "rl"


def test_a_node_is_drawn_again_only_when_it_has_changed(tmp_path: Path) -> None:
    folder = leave_pipeline(tmp_path / "small")
    write_pipeline_page(folder)
    pages = {name: folder / name / "report.html" for name in ("base", "rl")}
    for page in pages.values():
        page.write_text("kept")
    log(folder / "rl", {"step": 1, "rollout/reward_mean": 1.0})
    write_pipeline_page(folder)
    assert pages["base"].read_text() == "kept"
    assert "kept" not in pages["rl"].read_text()[:10]


def test_two_runs_differ_in_what_was_set_and_in_what_came_of_it(tmp_path: Path) -> None:
    one = leave_run(tmp_path / "a" / "rl", algo={"kl_coef": 0.1, "sampling": {"group_size": 2}}, same=1)
    other = leave_run(tmp_path / "b" / "rl", seed=[3], same=1)
    right = [{"prompt_id": f"{i}?", "prompt": f"{i}?", "completion": "x", "correct": i < 1} for i in range(4)]
    write_jsonl(other / "evaluations" / "easy-00004.jsonl", right)
    page = write_difference_page(one, other)
    assert page == one / "against_rl.html"
    assert texts(markup(page), "h1") == ["a/rl against b/rl"]
    found = rows(page)
    assert ["algo.kl_coef", "0.1", "(not set)"] in found
    assert ["seed", "(not set)", "[3]"] in found
    assert not [row for row in found if row[0] in ("same", "name", "algo.sampling.group_size", "")][2:]
    easy = [
        "easy",
        "pass@1",
        "0.750 [0.550, 0.950]",
        "0.750 [0.550, 0.950]",
        "+50.0 [-41.9, +100.0]",
        "p = 0.5, noise",
        "4",
    ]
    assert easy in found
    assert data(page)["prompts"]["labels"] == ["b/rl", "a/rl"]
    assert data(page)["prompts"]["counts"] == {"learned": 2, "lost": 0, "still wrong": 1, "still right": 1}
    assert [chart["lines"][1]["label"] for chart in data(page)["charts"]["Policy"]] == ["a/rl"]


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "rl")
    page = markup(write_difference_page(run, run))
    assert "None: the two configs are equal but for their names and folders." in page
    assert "p = 1, noise" in page


def test_text_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    folder = leave_pipeline(tmp_path / "small")
    config = (folder / "config.yaml").read_text().replace("what RL did", json.dumps(evil)[1:-1].replace("'", "''"))
    (folder / "config.yaml").write_text(config)
    run = leave_run(tmp_path / "run", name=evil, phase={"name": evil})
    for page in (write_run_page(run), write_pipeline_page(folder), write_difference_page(run, folder / "rl")):
        assert "<script>alert" not in page.read_text()
        assert page.read_text().count("<script") == 2  # the data, and the page's own


def test_json_holds_nothing_that_ends_its_element() -> None:
    for text in ("</script>", "<!--", "<script", "&amp;", "\u2028", "\u2029", "\ud800"):
        written = as_json({"t": [text]})
        assert not re.search("[<>&\u2028\u2029\ud800]", written)
        assert json.loads(written)["t"][0] == text.replace("\ud800", "?")
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json(float("nan"))


def test_nothing_is_fetched_and_nothing_becomes_markup(tmp_path: Path) -> None:
    for source in SOURCES:
        text = source.read_text().replace("http://www.w3.org/2000/svg", "")
        for word in REFUSED:
            assert word not in text, (source.name, word)
        assert len(text.splitlines()) <= 320, source.name
    policy = re.findall(r'content="(default-src.*?)">', write_run_page(leave_run(tmp_path / "run")).read_text(), re.S)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; base-uri 'none'; form-action 'none'",
        policy[0],
    )


def test_a_folder_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"run={tmp_path}: there is no metrics\.csv; give the folder of a training run"
    ):
        show(tmp_path)
    with pytest.raises(ConfigError, match=r"run=.*nowhere: there is no metrics\.csv"):
        show(leave_run(tmp_path / "run"), tmp_path / "nowhere")


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = leave_pipeline(tmp_path / "small")
    show(folder)
    show(folder / "rl", folder / "base")
    leave_report(folder / "rl")  # the end of the run has a line for it
    assert [line for line in said(capsys).split("report in ") if line][:3] == [
        f"{folder}/report.html ", f"{folder}/rl/against_base.html",
    ]  # fmt: skip


def test_a_report_that_fails_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = leave_run(tmp_path / "run")
    (run / "rollouts" / "00002.jsonl").write_text("{broken\n")
    leave_report(run)
    told = said(capsys)
    assert "report.html could not be made (JSONDecodeError: " in told
    assert f"python recipes/report.py run={run} tries again" in told
    assert not (run / "report.html").exists()


def test_a_wheel_holds_the_page(tmp_path: Path) -> None:
    """As an installed package finds it; built without the network, by the environment's own setuptools."""
    done = subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])",
         str(tmp_path)],
        cwd=copy_of_sources(tmp_path / "copy"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if "/report/page/" in name}
    assert held == {f"lightning_r1/report/page/{source.name}" for source in SOURCES}


def copy_of_sources(to: Path) -> Path:
    """What a wheel of the report is built from."""
    import shutil

    shutil.copytree(ROOT / "src/lightning_r1/report", to / "src/lightning_r1/report")
    for name in ("pyproject.toml", "README.md", "LICENSE", "src/lightning_r1/__init__.py"):
        shutil.copy(ROOT / name, to / name)
    return to
