"""The report in a real browser: it draws, it can be walked through, nothing leaves it, and nothing in its data runs."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from helpers.browser import browse, drive, needs_browser
from helpers.run_folders import leave_pipeline, leave_run, record, sample
from lightning_r1.report.difference_page import write_difference_page
from lightning_r1.report.pipeline_page import write_pipeline_page
from lightning_r1.report.run_page import write_run_page
from lightning_r1.text.records import write_jsonl

pytestmark = needs_browser

HOSTILE = (
    "</script><script>document.title = 'ran'; document.body.replaceChildren()</script>"
    "<!--<script><img src=x onerror=\"document.title='ran'\"><svg onload=\"document.title='ran'\">"
    "\u2028\u2029'\"`${document.title = 'ran'}&lt;\x00\ud800<a href='javascript:1'>&copy;</textarea><iframe src='/x'>"
)


def test_a_run_is_drawn_and_a_link_opens_a_completion(tmp_path: Path) -> None:
    page = write_run_page(leave_run(tmp_path / "run", steps=30))
    seen = browse(page, tmp_path / "profile", hash_="#step=7&group=1")
    assert seen.console == []
    assert {"reward ", "accuracy share", "time of a step seconds"} <= set(seen.texts("figcaption"))
    assert seen.dom.count('class="bold c0"') >= 5  # the curves themselves
    assert 'class="band c1"' in seen.dom  # the interval of the held-out accuracy
    assert "held out0.75 [0.55, 0.95]" in seen.texts("button", "key")
    (where,) = seen.texts("output")
    assert where == "rollout 7 · step 7 · mean reward 0.5 · 4 of 4 completions"
    assert seen.texts("div", "prompt")[0] == "3+3="  # the group that the link names is open, and only that
    rewards = [reward for reward in seen.texts("div", "rewards") if reward]
    assert rewards == ["accuracy 0", "accuracy 1"]
    assert seen.texts("details", "thinking")[:2] == [
        "thinking 3+3= 0<think>3+3= 0</think>", "thinking 3+3= 1<think>3+3= 1</think>",
    ]  # fmt: skip
    assert seen.texts("div", "answer")[:2] == ["0", "1"]
    # held out: of four prompts one was right, then three
    assert seen.texts("button", "kind") == ["learned 2", "lost 0", "still wrong 1", "still right 1"]
    assert seen.texts("div", "answer")[2:] == ["at step 0", "at step 30"] * 2


def test_what_a_model_writes_does_not_run(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "run", name=f"n{HOSTILE.replace(chr(0), '').replace(chr(0xD800), '')}")
    records = [record(HOSTILE, 1.0, prompt=HOSTILE), record("<think>" + HOSTILE, 0.0, prompt=HOSTILE)]
    text = [{**one, "rewards": {HOSTILE: one["reward"]}, "outcomes": {HOSTILE: "timeout"}} for one in records]
    (run / "rollouts" / "00001.jsonl").write_text("".join(json.dumps(one) + "\n" for one in text))
    write_jsonl(run / "evaluations" / "easy-00000.jsonl", [sample(HOSTILE.replace("\ud800", ""), "<b>x</b>", False)])
    write_jsonl(run / "evaluations" / "easy-00004.jsonl", [sample(HOSTILE.replace("\ud800", ""), "</script>", True)])
    seen = browse(write_run_page(run), tmp_path / "profile", hash_="#rollout=1")
    assert seen.console == []
    assert "<title>n&lt;/script&gt;" in seen.dom
    assert "ran</title>" not in seen.dom
    for element in ("<img", "<iframe", "<a href", "<b>x", "<svg onload", "<textarea"):
        assert element not in seen.dom.partition("<script")[0], element
    # as it was written, to the letter
    visible = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "?")
    answer = seen.texts("div", "answer")[0]
    assert answer.replace("\x00", "\ufffd") == visible
    assert seen.texts("div", "answer")[-1] == "</script>"


def test_a_pipeline_is_drawn_and_a_link_opens_a_node(tmp_path: Path) -> None:
    page = write_pipeline_page(leave_pipeline(tmp_path / "small"))
    seen = browse(page, tmp_path / "profile", hash_="#node-rl")
    assert seen.console == []
    assert '<details class="node" id="node-rl" open="">' in seen.dom
    assert {"reward: sum ", "accuracy: held out share"} <= set(seen.texts("figcaption"))
    assert [text[:2] for text in seen.texts("button", "key")[:2]] == ["ba", "rl"]


def test_two_runs_are_overlaid(tmp_path: Path) -> None:
    one, other = leave_run(tmp_path / "one", seed=1), leave_run(tmp_path / "other", seed=2, steps=8)
    seen = browse(write_difference_page(one, other), tmp_path / "profile")
    assert seen.console == []
    assert [key[:3] for key in seen.texts("button", "key")[:2]] == ["oth", "one"]
    assert seen.texts("button", "kind") == ["learned 0", "lost 0", "still wrong 1", "still right 3"]


def test_nothing_is_wider_than_a_small_phone(tmp_path: Path) -> None:
    """What does not fit scrolls for itself; the page does not."""
    pages = [
        write_run_page(leave_run(tmp_path / "a_run_with_a_rather_long_name_that_has_no_spaces")),
        write_pipeline_page(leave_pipeline(tmp_path / "small")),
    ]
    for page in pages:
        widths = "const all = page.documentElement; return [all.scrollWidth, all.clientWidth];"
        needed, there = drive(page, tmp_path / "profile", widths, width=360)
        assert needed == there <= 360


def test_nothing_is_cut_off_on_paper(tmp_path: Path) -> None:
    """Paper does not scroll: the graph of many nodes becomes small, and a wide table's cells break."""
    run = leave_run(tmp_path / "run", name="a" * 30)
    small = leave_pipeline(tmp_path / "small")
    settings = yaml.safe_load((small / "config.yaml").read_text())
    settings["pipeline"]["nodes"] |= {f"node_{i}": {"overrides": []} for i in range(9)}
    (small / "config.yaml").write_text(yaml.safe_dump(settings))
    for page in (write_run_page(run), write_pipeline_page(small)):
        cut_off = drive(
            page,
            tmp_path / "profile",
            """
            for (const rule of page.styleSheets[0].cssRules)
              if (rule.media && rule.media.mediaText === "print") rule.media.mediaText = "all";
            const width = page.documentElement.clientWidth;
            return [...page.querySelectorAll("table, .graph, .graph svg, .chart")]
              .filter((part) => part.getBoundingClientRect().right > width).map((part) => part.outerHTML.slice(0, 200));
            """,
            width=680,
        )
        assert cut_off == []


def test_filters_and_keys(tmp_path: Path) -> None:
    page = write_run_page(leave_run(tmp_path / "run", steps=9))
    told = drive(
        page,
        tmp_path / "profile",
        """
        const told = {}, all = (what) => [...page.querySelectorAll(what)];
        const say = (field, value, event) => { field.value = value; field.dispatchEvent(new view.Event(event)); };
        const groups = () => all("#browser .group .title").map((title) => title.textContent);
        told.first = groups();
        say(page.querySelector("#browser input[type=search]"), "3+", "input");
        told.text = groups();
        page.querySelector("#browser input[type=checkbox]").click();
        told.everywhere = groups().length;
        say(page.querySelector("#browser input[type=number]"), "2", "input");
        told.reward = groups().length;
        told.nothing = page.querySelector("#browser .note").textContent;
        say(page.querySelector("#browser input[type=number]"), "1", "input");
        told.dimmed = all("#browser .card.dimmed").length;
        page.querySelector("#browser input[type=range]").value = 0;
        page.querySelector("#browser input[type=range]").dispatchEvent(new view.Event("input"));
        told.slid = page.querySelector("output").textContent.slice(0, 9);
        const chart = page.querySelector(".chart");
        const press = (key) => chart.dispatchEvent(new view.KeyboardEvent("keydown", { key }));
        press("ArrowLeft"); press("ArrowLeft");
        told.step = all(".chart .step").map((step) => step.textContent);
        told.value = chart.querySelector(".value").textContent;
        told.link = chart.querySelector(".step").getAttribute("href");
        press("Escape");
        told.away = chart.querySelector(".step").textContent;
        chart.querySelector(".key").click();
        told.hidden = chart.querySelectorAll("path.bold.c0").length;
        told.others = all("#other-numbers .chart").length;
        page.querySelector("#other-numbers details").open = true;
        const kind = all("#prompts .kind")[2]; kind.click();
        told.kind = all("#prompts .answer").map((answer) => answer.textContent);
        return told;
    """,
    )
    assert told == {
        "first": ["2+2=", "3+3="], "text": ["3+3="], "everywhere": 9, "reward": 0,
        "nothing": "No completion here fits; widen the filters, or look in all rollouts.",
        "dimmed": 1, "slid": "rollout 1", "step": ["step 8"] * len(told["step"]), "value": "0.889", "link": "#step=8",
        "away": "", "hidden": 0, "others": 0, "kind": ["at step 0", "at step 9"],
    }  # fmt: skip
