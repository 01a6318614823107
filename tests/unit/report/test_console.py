"""The report: a picture with the curves that were measured, and completions early and late."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.console import said
from helpers.run_folders import log
from lightning_r1.callbacks.console import console
from lightning_r1.config.errors import ConfigError
from lightning_r1.report import curves as curves_module
from lightning_r1.report.console import evaluation_tables, show, side_by_side
from lightning_r1.report.curves import PANELS, draw_curves
from lightning_r1.report.read import read_curves
from lightning_r1.report.series import running_mean
from lightning_r1.text.records import write_jsonl


def trained(run_dir: Path, steps: int = 80) -> None:
    """The numbers of a run that learned, evaluated before and after."""
    log(
        run_dir,
        {"step": 0, "eval/operators/pass@1": 0.05, "eval/operators/think_length_mean": 20.0},
        *(
            {
                "step": step,
                "rollout/reward_mean": step / steps + 0.1 * math.sin(step),
                "rollout/reward/accuracy": step / steps,
                "rollout/reward/format": 0.5,
                "rollout/think_length_mean": 20.0 + step,
                "policy/entropy": 1.5 - step / steps,
                "policy/kl_ref": 0.01 * step,
            }
            for step in range(1, steps + 1)
        ),
        {"step": steps, "eval/operators/pass@1": 0.9, "eval/operators/think_length_mean": 90.0},
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures of the reports that are made, before they are painted, which takes the longest."""
    figures: list[Any] = []
    close = curves_module.plt.close
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: None)
    monkeypatch.setattr(curves_module.plt, "close", lambda figure: (figures.append(figure), close(figure)))
    return figures


def lines(figure: Any) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points by panel and label; what is drawn faintly behind has no label."""
    return {
        axis.get_title(loc="left"): {
            line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
            for line in axis.get_lines()
            if not line.get_label().startswith("_")
        }
        for axis in figure.axes
    }


def test_a_picture_of_sensible_size_is_made(tmp_path: Path) -> None:
    trained(tmp_path)
    picture = draw_curves(tmp_path)
    assert picture == tmp_path / "curves.png"
    with Image.open(picture) as image:
        image.load()
        assert image.format == "PNG"
        assert 1000 <= image.width <= 3000
        assert 500 <= image.height <= 2000
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert colours.pop((255, 255, 255)) > 0.5 * image.width * image.height
    # both colours of the curves are there, and more of them than specks
    for colour in ((0x33, 0x65, 0x8A), (0xC8, 0x55, 0x3D)):
        assert colours[colour] > 500


def test_the_curves_are_the_numbers(tmp_path: Path, drawn: list[Any]) -> None:
    trained(tmp_path)
    draw_curves(tmp_path)
    panels = lines(drawn[0])
    assert list(panels) == [title for title, _ in PANELS]
    assert panels["accuracy"]["held out"] == [(0, 0.05), (80, 0.9)]
    training = panels["accuracy"]["training"]
    assert [step for step, _ in training] == list(range(1, 81))
    # a mean over five steps
    assert training[40] == (41, pytest.approx(41 / 80))
    assert training[0] == (1, pytest.approx(2 / 80))
    assert panels["reward"].keys() == {"sum", "format"}
    assert panels["thinking length (tokens)"]["held out"][-1] == (80, 90.0)
    assert panels["KL to the reference (nats a token)"]["training"][-1][1] == pytest.approx(0.79)


def test_what_was_not_measured_says_so(tmp_path: Path, drawn: list[Any]) -> None:
    trained(tmp_path)
    draw_curves(tmp_path)
    says = {
        axis.get_title(loc="left"): "not measured in this run" in [text.get_text() for text in axis.texts]
        for axis in drawn[0].axes
    }
    assert [title for title, absent in says.items() if absent] == ["reflections a completion"]


@pytest.mark.parametrize(
    "rows", [(), ({"step": 1, "train/loss": 2.0, "optim/lr": 0.1},)], ids=["no rows", "no rewards"]
)
def test_a_run_without_any_of_the_numbers_has_empty_panels(rows: Any, tmp_path: Path, drawn: list[Any]) -> None:
    log(tmp_path, *rows)
    draw_curves(tmp_path)
    assert all(len(axis.get_lines()) == 0 for axis in drawn[0].axes)
    assert [len(axis.texts) for axis in drawn[0].axes] == [1] * len(PANELS)


def test_a_number_that_could_not_be_measured_does_not_break_its_curve(tmp_path: Path, drawn: list[Any]) -> None:
    log(tmp_path, *({"step": step, "policy/entropy": math.nan if step == 2 else 1.0} for step in range(1, 4)))
    draw_curves(tmp_path)
    assert lines(drawn[0])["entropy (nats a token)"]["training"] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_a_run_of_one_step_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    log(tmp_path, {"step": 1, "rollout/reward_mean": 0.5})
    draw_curves(tmp_path)
    assert lines(drawn[0])["reward"]["sum"] == [(1, 0.5)]


def test_every_set_is_drawn_and_told_apart(tmp_path: Path, drawn: list[Any]) -> None:
    log(
        tmp_path,
        {"step": 0, "eval/easy/pass@1": 0.5, "eval/hard/pass@1": 0.1},
        {"step": 9, "eval/easy/pass@1": 0.9, "eval/hard/pass@1": 0.3},
    )
    draw_curves(tmp_path)
    (axis,) = (axis for axis in drawn[0].axes if axis.get_title(loc="left") == "accuracy")
    found = {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}
    assert found == {"held out: easy": [0.5, 0.9], "held out: hard": [0.1, 0.3]}
    assert axis.get_legend() is not None


def test_drawing_again_replaces_the_picture(tmp_path: Path) -> None:
    trained(tmp_path, steps=5)
    first = draw_curves(tmp_path).read_bytes()
    trained(tmp_path, steps=9)
    assert draw_curves(tmp_path).read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"run={tmp_path}: there is no metrics\.csv; give the folder of a training run"
    ):
        draw_curves(tmp_path)


def test_curves_hold_what_was_logged_at_each_step(tmp_path: Path) -> None:
    log(tmp_path, {"step": 0, "a": 1.0}, {"step": 2, "b": 0.5}, {"step": 3, "a": 0.25, "b": 0.0})
    assert read_curves(tmp_path / "metrics.csv") == {"a": ([0, 3], [1.0, 0.25]), "b": ([2, 3], [0.5, 0.0])}


@pytest.mark.parametrize(
    ("half_width", "expected"), [(0, [1, 2, 9]), (1, [1.5, 4, 5.5]), (2, [4, 4, 4]), (99, [4, 4, 4])]
)
def test_running_means_are_shorter_at_the_ends(half_width: int, expected: list[float]) -> None:
    assert running_mean([1.0, 2.0, 9.0], half_width) == expected
    assert running_mean([], half_width) == []
    assert math.isnan(running_mean([math.nan], half_width)[0])


def evaluated(run_dir: Path, name: str, answers: dict[int, list[tuple[str, bool]]], samples: int = 1) -> None:
    """Evaluations of a set: at each step, one (text, right) for each prompt, then other samples of it."""
    for step, of_prompts in answers.items():
        records = [
            {"prompt_id": f"{name}/{place}", "prompt": f"{name}{place}?", "completion": text, "correct": right}
            for place, (answer, right) in enumerate(of_prompts)
            for text in [answer, *(f"{answer} again" for _ in range(samples - 1))]
        ]
        write_jsonl(run_dir / "evaluations" / f"{name}-{step:05d}.jsonl", records)


def rows_of(table: Any) -> list[list[str]]:
    """Header and cells."""
    columns = [[str(column.header), *(str(cell) for cell in column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_the_first_and_the_last_answers_stand_side_by_side(tmp_path: Path) -> None:
    evaluated(
        tmp_path,
        "a",
        {
            0: [("wrong 0", False), ("right 1", True), ("wrong 2", False), ("wrong 3", False)],
            50: [("half 0", True), ("half 1", False), ("half 2", True), ("half 3", True)],
            100: [("learned 0", True), ("kept 1", True), ("still wrong 2", False), ("learned 3", True)],
        },
        samples=3,
    )
    assert rows_of(side_by_side(tmp_path)) == [
        ["prompt", "step 0", "step 100"],
        ["a0?", "wrong 0", "learned 0"],
        ["a3?", "wrong 3", "learned 3"],
    ]


@pytest.mark.parametrize(("learned", "count"), [(1, 4), (4, 4), (9, 4), (9, 2), (100, 3)])
def test_the_rows_are_taken_from_all_over_the_set(learned: int, count: int, tmp_path: Path) -> None:
    evaluated(tmp_path, "a", {0: [("early", False)] * learned, 7: [("late", True)] * learned})
    prompts = [row[0] for row in rows_of(side_by_side(tmp_path, count=count))[1:]]
    assert len(prompts) == len(set(prompts)) == min(learned, count)
    places = [int(prompt[1:-1]) for prompt in prompts]
    assert places == sorted(places)
    assert places[-1] >= learned * (count - 1) // count - count


def test_the_last_step_is_the_last_by_number(tmp_path: Path) -> None:
    evaluated(tmp_path, "a", {step: [(str(step), step > 0)] for step in (0, 99950, 100000)})
    assert rows_of(side_by_side(tmp_path))[0] == ["prompt", "step 0", "step 100000"]


def test_each_set_is_compared_with_itself(tmp_path: Path) -> None:
    for name in ("easy", "hard"):
        evaluated(tmp_path, name, {0: [(f"{name} early", False)], 5: [(f"{name} late", True)]})
    assert rows_of(side_by_side(tmp_path))[1:] == [
        ["easy0?", "easy early", "easy late"],
        ["hard0?", "hard early", "hard late"],
    ]


def test_names_with_a_dash_are_names(tmp_path: Path) -> None:
    for name in ("aime-24", "aime"):
        evaluated(tmp_path, name, {0: [("early", False)], 5: [("late", True)]})
    assert sorted(row[0] for row in rows_of(side_by_side(tmp_path))[1:]) == ["aime-240?", "aime0?"]


@pytest.mark.parametrize("steps", [(), (0,)])
def test_without_two_evaluations_there_is_nothing_to_compare(steps: tuple[int, ...], tmp_path: Path) -> None:
    evaluated(tmp_path, "a", {step: [("early", False)] for step in steps})
    assert side_by_side(tmp_path) is None


def test_nothing_learned_is_an_empty_comparison(tmp_path: Path) -> None:
    evaluated(tmp_path, "a", {0: [("early", False)], 5: [("late", False)]})
    table = side_by_side(tmp_path)
    assert table is None or table.row_count == 0


def test_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 200)
    trained(tmp_path, steps=5)
    evaluated(tmp_path, "a", {0: [("[bold]early[/bold]", False)], 5: [("<think>late", True)]})
    show(tmp_path)
    shown = said(capsys)
    assert f"report in {tmp_path}/report.html" in shown
    assert f"curves in {tmp_path}/curves.png" in shown
    # as they were written, whatever the console would make of it
    assert "a0? │ [bold]early[/bold] │ <think>late" in shown


def test_evaluations_of_several_sets_are_one_table_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"pass@1": 0.5, "pass@1_low": 0.25, "pass@1_high": 0.75, "think_length_mean": 7.0, "length_mean": 9.0,
               "ungraded_fraction": 0.0}  # fmt: skip
    for folder, model, name in (("x", "one", "easy"), ("y", "one", "hard"), ("z", "two", "easy")):
        (tmp_path / folder).mkdir()
        summary = {
            "model": "m", "path": model, "sets": {name: {"problems": 4, "group_size": 1}},
            "after": {f"eval/{name}/{key}": value for key, value in numbers.items()},
        }  # fmt: skip
        (tmp_path / folder / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "summary.json").write_text('{"phase": "r1_zero", "after": {}}')
    tables = evaluation_tables(tmp_path)
    assert [[column.header for column in table.columns] for table in tables] == [["", "easy", "hard"], ["", "easy"]]
    assert evaluation_tables(tmp_path / "rl") == []
    show(tmp_path)
    assert "m (two)" in capsys.readouterr().out
