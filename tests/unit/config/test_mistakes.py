"""A mistake in the command is told with what was meant."""

from __future__ import annotations

import pytest

from lightning_r1.config import compose
from lightning_r1.config.compose import compose_config, recipe
from lightning_r1.config.conf_dir import choices
from lightning_r1.config.errors import ConfigError

MINI = "experiment=mini_r1_zero"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([MINI, "model=qwen2_5_7"], "model=qwen2_5_7: there is no such choice; did you mean qwen2_5_7b? There are: "),
        (["phase=mini_r1_zero"], "phase=mini_r1_zero: there is no such choice; did you mean experiment=mini_r1_zero?"),
        ([MINI, "rollout=zzz"], "rollout=zzz: there is no such choice; choose one of: continuous, group"),
        (["mini_r1_zero"], "mini_r1_zero: the = is missing; did you mean experiment=mini_r1_zero?"),
        ([MINI, "lr=1e-6"], "lr: there is no such key; did you mean optim.lr?"),
        ([MINI, "kl_coef=0"], "kl_coef: there is no such key; did you mean algo.kl_coef?"),
        ([MINI, "algo.lr=1e-6"], "algo.lr: there is no such key; did you mean optim.lr?"),
        ([MINI, "optim.lrr=1e-6"], "optim.lrr: there is no such key; did you mean optim.lr?"),
        ([MINI, "temperature=1"], "did you mean algo.sampling.temperature or eval.sampling.temperature?"),
        ([MINI, "trainer.max_stepz=1"], "did you mean trainer.max_steps?"),
        ([MINI, "zzzzzz=1"], "zzzzzz: there is no such key; see --help; to add a new key write +zzzzzz=..."),
        (["pipeline=mini"], "pipeline: there is no such group here, it belongs to another recipe"),
        ([MINI, "trainer.max_steps"], "trainer.max_steps: the = is missing; write trainer.max_steps=<value>"),
        ([MINI, "max_steps"], "max_steps: the = is missing; write trainer.max_steps=<value>"),
        ([MINI, "seed", "=", "1"], "seed: no spaces around the =; write key=value"),
        ([MINI, "optim.betas=[0.9"], "optim.betas=[0.9: this cannot be read; close every bracket and quote"),
        ([MINI, "optim.lr=1,2"], "optim.lr=1,2: a run has one value; leave one of them, write a list as"),
        ([], "model.path is not set; add model.path=... to the command, or choose another model (model=<one of: llama"),
    ],
)
def test_the_nearest_valid_thing_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("train", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_choice_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config("train", [MINI, "algo=dapoo"])
    assert str(caught.value).endswith(f"did you mean dapo? There are: {', '.join(choices('algo'))}")


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Status and error of a recipe that is started so, and that must not begin to work."""
    monkeypatch.setattr(compose.sys, "argv", ["recipes/train.py", *arguments])
    with pytest.raises(SystemExit) as left:
        recipe("train")(lambda config: pytest.fail("it has begun"))()
    return int(left.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--experiment=mini_r1_zero"], "experiment=mini_r1_zero"),
        ([MINI, "--max_steps", "5"], "trainer.max_steps=..."),
        ([MINI, "--algo.kl_coef=0"], "algo.kl_coef=0"),
        ([MINI, "--exp=x"], "exp=x"),
    ],
)
def test_keys_have_no_dashes(
    arguments: list[str], key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = ended(monkeypatch, capsys, *arguments)
    assert status == 2
    assert said.startswith(f"error: {next(one for one in arguments if one.startswith('--'))}: there is no such option")
    assert said.endswith(f"keys are written without dashes: {key}\n")


@pytest.mark.parametrize("more", [["--multirun", "optim.lr=1,2"], ["--cfg", "job"], ["-m", "seed=1,2"]])
def test_it_is_as_short_where_options_are_given(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = ended(monkeypatch, capsys, MINI, "optim.lrr=1", *more)
    assert (status, said) == (2, "error: optim.lrr: there is no such key; did you mean optim.lr?\n")
