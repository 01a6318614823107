"""Each rule refuses what it is named after, in one line that names key, value and fix."""

from typing import Any

import pytest

from lightning_r1.config.checks import RULES, check_rules
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError

BROKEN = {
    "name_is_a_folder_name": (["name=../up"], "name='../up'"),
    "model_is_a_path_or_an_architecture": (["+model.architecture.model_type=llama"], "model.path=org/model"),
    "model_path_exists": (["model.path=./nowhere"], r"model.path=./nowhere: .*config.json"),
    "reward_models_exist": (
        ["reward=all_scenarios", "reward.rewards.helpfulness.path=./rm", "reward.rewards.harmlessness.path=a/b"],
        r"reward.rewards.helpfulness.path=./rm: there is no model there; train it with phase=reward_model",
    ),
    "from_scratch_is_for_pretraining": (["model=mini_scratch"], "phase=pretrain"),
    "a_teacher_has_learned": (
        ["phase=distill_on_policy", "model@teacher=mini_scratch"],
        "teacher.architecture: random weights teach nothing; set teacher.path",
    ),
    "algorithm_is_the_phases": (["algo=distill"], "algo: phase=r1_zero needs a policy-gradient algorithm"),
    "a_divergence_is_one_of_ours": (
        ["phase=distill_on_policy", "teacher.path=a/b", "algo.divergence=jsd", "algo.beta=0.0"],
        "algo.beta=0.0: jsd needs 0 < beta < 1",
    ),
    "completions_are_scored": (["~reward"], "reward: every completion is scored; choose reward=rules"),
    "layers_are_computed_again_or_compiled": (
        ["model.activation_checkpointing=offload", "model.compile=true"],
        "model.compile=true: not beside activation checkpointing",
    ),
    "group_has_two_completions": (["algo.sampling.group_size=1"], "algo.sampling.group_size=1"),
    "rollouts_are_random": (["algo.sampling.temperature=0"], "algo.sampling.temperature=0"),
    "scored_distribution_is_the_sampled_one": (["algo.sampling.top_p=0.9"], "algo.sampling.top_p=0.9"),
    "minibatches_fit_the_rollout": (
        ["algo=grpo", "algo.minibatches_per_rollout=1000"],
        "algo.minibatches_per_rollout=1000",
    ),
    "prompts_divide_over_ranks": (["algo=grpo", "trainer.devices=3"], "algo.prompts_per_rollout=32"),
    "ranks_are_those_that_were_started": (
        ["trainer.devices=2"],
        "trainer.devices=2: Slurm started 4 tasks a node; leave it out .*, or have Slurm start 2",
    ),
    "sharding_is_for_training": (
        ["parallel=fsdp", "name=x", "~phase"],
        "parallel=fsdp: only training is .*parallel=ddp",
    ),
    "ranks_wait_for_each_other": (
        ["parallel=ddp", "trainer.devices=8", "parallel.timeout_minutes=0"],
        "parallel.timeout_minutes=0: expected more than 0",
    ),
    "shards_can_be_laid_out": (
        ["parallel=fsdp", "trainer.devices=8", "parallel.replicas=3"],
        "parallel.replicas=3: expected a divisor of the 8 ranks",
    ),
    "a_sharded_precision_is_one_of_two": (
        ["parallel=hsdp", "parallel.mixed_precision=bf16", "trainer.precision=bf16-true"],
        "parallel.mixed_precision=bf16: .* set trainer.precision=32-true model.dtype=float32",
    ),
    "sharded_layers_are_not_compiled": (
        ["parallel=fsdp", "model.compile=true"],
        "model.compile=true: not with parallel=fsdp; set it to false",
    ),
    "refresh_needs_a_reference": (["algo=grpo", "algo.reference_refresh_steps=400"], "algo.kl_coef"),
    "dual_clip_lies_above_the_clip": (["algo.dual_clip=1.1"], "algo.dual_clip=1.1"),
    "correction_bounds_are_ordered": (["algo.correction_high=0.5"], "algo.correction_high=0.5"),
    "older_completions_are_corrected": (
        ["algo.overlap_rollouts=true"],
        "algo.overlap_rollouts=true: it trains on .*; correct for that with algo.sampler_correction=truncate",
    ),
    "a_surplus_comes_from_refills": (
        ["algo.keep_surplus=true", "algo.sampler_correction=mask", "algo.dead_groups=drop"],
        "algo.keep_surplus=true: with algo.dead_groups=drop there is no surplus; set algo.dead_groups=refill",
    ),
    "overlapped_rollouts_do_not_meet_the_update": (
        ["algo.overlap_rollouts=true", "algo.sampler_correction=truncate", "rollout=hf"],
        "algo.overlap_rollouts=true: .*HFEngine cannot sample while the policy trains; choose rollout=group",
    ),
    "rewards_have_somewhere_to_run": (
        ["reward.workers.timeout_s=0"],
        r"reward\.workers\.timeout_s=0: expected > 0 seconds",
    ),
    "routes_lead_from_rewards_to_domains": (
        ["+reward.routes.accuracy=[maths]"],
        r"reward.routes.accuracy: 'maths' is no domain; choose from \['reasoning', 'helpful', 'harmless'\]",
    ),
    "programs_have_a_grader": (["data=codeforces"], "data: .* no reward runs them; choose reward=rules_and_code"),
    "another_programs_samples_are_corrected": (
        ["rollout=vllm"],
        r"algo.sampler_correction=none: rollout._target_=.*VLLMEngine is another program.*sampler_correction=tru",
    ),
    "engines_options_are_in_range": (
        ["rollout=vllm_server", "algo.sampler_correction=mask", "rollout.base_url=host:8000"],
        r"rollout.base_url=host:8000: expected an address like http://host:8000",
    ),
    "an_engine_in_vllm_has_vllm": (
        ["rollout=vllm", "algo.sampler_correction=truncate"],
        r"rollout=vllm: vLLM is not installed; install it with pip install 'lightning-r1\[vllm\]', or choose rollout=g",
    ),
    "an_optimizer_of_8_bits_has_bitsandbytes": (
        ["optim=adamw8bit"],
        r"optim=adamw8bit: bitsandbytes is not installed; install it with pip install 'lightning-r1\[bnb\]', or choose",
    ),
    "pages_are_cudas": (
        ["optim=adamw8bit_paged", "trainer.accelerator=cpu"],
        r"optim.paged=true: pages are CUDA's, and trainer.accelerator=cpu; set optim.paged=false",
    ),
    "rewards_of_length_end_where_sampling_does": (
        ["reward=dapo", "reward.rewards.overlong.max_tokens=1000"],
        r"reward.rewards.overlong.max_tokens=1000: completions end at algo.sampling.max_new_tokens=32768; make them eq",
    ),
    "an_adapter_is_one_of_ours": (["model.adapter=dora"], "model.adapter=dora: expected null, lora or qlora"),
    "an_adapter_has_its_libraries": (
        ["model.adapter=lora"],
        r"model.adapter=lora: peft is not installed; install it with pip install 'lightning-r1\[lora\]', or set model",
    ),
    "an_adapter_is_trained_on_a_trained_model": (
        ["model.adapter=lora", "model=mini_scratch", "phase=pretrain", "data=operators_text"],
        "model.adapter=lora: random weights are no base; set model.adapter=null, or model.path to a trained model",
    ),
    "four_bits_are_not_sharded": (
        ["model.adapter=qlora", "parallel.strategy=fsdp"],
        "model.adapter=qlora: weights in four bits cannot be sharded; choose parallel=ddp, or model.adapter=lora",
    ),
    "clipping_is_not_lightnings": (["+trainer.gradient_clip_val=1.0"], "phase.module.max_grad_norm"),
    "precision_needs_no_loss_scaling": (["trainer.precision=16-mixed"], "trainer.precision=16-mixed"),
    "an_environment_answers_someone": (
        ["environment=calculator", "phase=reward_model", "data=preferences", "data.rows.path=x"],
        "environment: a reward model writes nothing that could be answered; set environment=none",
    ),
    "an_environments_engine_stops_at_texts": (
        ["environment=calculator", "rollout=continuous"],
        "environment: rollout._target_=.*ContinuousEngine does not stop where a call ends; choose rollout=group",
    ),
    "texts_end_completions_where_they_are_looked_for": (
        ["algo.sampling.stop=[x]", "rollout=continuous"],
        "algo.sampling.stop=.*x.*: .*ContinuousEngine does not look for texts; choose rollout=group or hf, or stop at",
    ),
    "an_episode_has_room_for_replies": (
        ["environment=calculator", "algo.sampling.max_new_tokens=8", "environment.budget.max_reply_tokens=8"],
        "environment.budget.max_reply_tokens=8: an episode has algo.sampling.max_new_tokens=8 tokens in all",
    ),
    "wandb_can_be_begun": (
        ["logger.wandb.mode=onlin"],
        "logger.wandb.mode=onlin: choose one of auto, online, offline",
    ),
    "plain_values_are_of_their_kind": (["seed=abc"], "seed='abc': expected"),
    "threads_are_one_at_least": (["threads=0"], "threads=0: expected at least 1, or null for torch's own choice"),
    "steps_are_counted": (["trainer.max_steps=0"], "trainer.max_steps=0"),
}


def config(*overrides: str) -> dict[str, Any]:
    said = ["model.path=org/model", "data=countdown", "trainer.max_steps=10"]
    if "model=mini_scratch" in overrides:
        said.remove("model.path=org/model")
    return compose_config("train", [*said, *overrides])


def test_every_rule_has_its_case() -> None:
    assert {rule.__name__ for rule in RULES} == set(BROKEN)


def test_a_good_config_passes() -> None:
    check_rules(config())


ENVIRONMENT = {"ranks_are_those_that_were_started": {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}}


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is one."""
    monkeypatch.setattr("lightning_r1.config.engine_rules.importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("no_vllm")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_names_key_value_and_fix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ENVIRONMENT.get(name, {}).items():
        monkeypatch.setenv(variable, value)
    overrides, message = BROKEN[name]
    with pytest.raises(ConfigError, match=message) as caught:
        {rule.__name__: rule for rule in RULES}[name](config(*overrides))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        check_rules(config(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter.rank=0"], r"adapter\.rank=0: expected >= 1, e\.g\. 32"),
        (["adapter.targets=[q_proj,lm_head]"], r"adapter\.targets: lm_head cannot be adapted.*targets=all-linear"),
        (
            ["phase=distill_on_policy", "teacher.path=a/b", "teacher.adapter=lora"],
            r"teacher\.adapter=lora: a teacher do",
        ),
        (["phase=reward_model", "data=talk_preferences"], r"model\.adapter=qlora: a reward model's head is new"),
    ],
)
def test_adapters_that_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_rules(config("model.adapter=qlora", *overrides))


def test_an_adapter_is_for_training_alone() -> None:
    said = ["model.path=org/model", "eval=aime24"]
    with pytest.raises(ConfigError, match=r"model\.adapter=lora: nothing trains here; set model.adapter=null"):
        check_rules(compose_config("evaluate", [*said, "model.adapter=lora"]))
    check_rules(compose_config("evaluate", said))
    for kind in ("lora", "qlora"):
        check_rules(config(f"model.adapter={kind}"))


def test_four_bits_need_two_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_r1.config.adapter_rules.importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else 1
    )
    check_rules(config("model.adapter=lora"))
    with pytest.raises(ConfigError, match=r"qlora: bitsandbytes is not installed.*'lightning-r1\[lora,bnb\]'"):
        check_rules(config("model.adapter=qlora"))


def test_programs_have_a_reward_that_runs_them() -> None:
    for data in ("codeforces", "apps", "mbpp"):
        with pytest.raises(ConfigError, match="data: its answers are programs, and no reward runs them"):
            check_rules(config(f"data={data}"))
        check_rules(config(f"data={data}", "reward=rules_and_code"))
    check_rules(config("data=codeforces", "reward.rewards.accuracy._target_=helpers.rewards.digits_are_good"))
    check_rules(config("data=jsonl", "data.rows.path=x.jsonl", "data.rows.kind=code", "reward=rules_and_code"))
    with pytest.raises(ConfigError, match="no reward runs them"):
        check_rules(config("data=jsonl", "data.rows.path=x.jsonl", "data.rows.kind=code"))


def test_programs_to_sample_have_to_pass_their_tests() -> None:
    said = ["model.path=org/model", "data=mbpp", "sample=rejection_sampling"]
    with pytest.raises(ConfigError, match="no reward runs them; choose reward=rules_and_code"):
        check_rules(compose_config("sample", said))
    with pytest.raises(ConfigError, match=r"wrong ones would be kept; add \+sample\.require\.code=1\.0"):
        check_rules(compose_config("sample", [*said, "reward=rules_and_code"]))
    check_rules(compose_config("sample", [*said, "reward=rules_and_code", "+sample.require.code=1.0"]))


def test_programs_to_evaluate_on_are_graded() -> None:
    for name in ("livecodebench", "codeforces"):
        check_rules(config(f"eval={name}"))
        with pytest.raises(ConfigError, match=rf"eval\.code=None: the answers of eval={name} are programs; give it"):
            check_rules(config(f"eval={name}", "eval.code=null"))
    check_rules(config("eval=gsm8k", "eval.code=null"))


def test_a_length_reward_fits_the_algorithm() -> None:
    check_rules(config("reward=dapo", "algo=dapo"))
    check_rules(config("reward=cosine"))
    with pytest.raises(ConfigError, match=r"overlong.cache_tokens=4096: expected 1 to max_tokens=512, e.g. 102"):
        check_rules(config("reward=dapo", "algo=grpo"))
    with pytest.raises(ConfigError, match=r"reward.rewards.cosine.max_tokens=1: completions end at"):
        check_rules(config("reward=cosine", "reward.rewards.cosine.max_tokens=1"))


def test_whole_groups_fit_the_minibatches() -> None:
    check_rules(config("algo=grpo", "algo.minibatches_per_rollout=32", "algo.whole_groups=true"))
    check_rules(config("algo=grpo", "algo.minibatches_per_rollout=33"))
    with pytest.raises(ConfigError, match="minibatches_per_rollout=33: a rollout gives each of 1 ranks only 32 groups"):
        check_rules(config("algo=grpo", "algo.minibatches_per_rollout=33", "algo.whole_groups=true"))


def test_the_correction_allows_a_truncated_sampler() -> None:
    check_rules(config("algo.sampling.top_p=0.9", "algo.sampler_correction=truncate"))


def test_older_completions_may_be_learned_from_with_a_correction() -> None:
    check_rules(config("algo.overlap_rollouts=true", "algo.sampler_correction=truncate"))
    check_rules(config("algo.keep_surplus=true", "algo.dead_groups=refill", "algo.sampler_correction=mask"))
    with pytest.raises(ConfigError, match=r"algo\.keep_surplus=true: it trains on completions of older weights"):
        check_rules(config("algo.keep_surplus=true", "algo.dead_groups=refill"))


def test_a_teacher_is_looked_for_as_a_model_is() -> None:
    distill = ["phase=distill_on_policy", "teacher.path=./nowhere"]
    with pytest.raises(ConfigError, match=r"teacher.path=./nowhere: there is no model there; set it to a folder"):
        check_rules(config(*distill))
    with pytest.raises(
        ConfigError, match=r"teacher.path=./nowhere: there is no model there; make it first with: \S*python"
    ):
        check_rules(config(*distill, "+teacher.made_by='train experiment=mini_base'"))
    with pytest.raises(ConfigError, match=r"algo: phase=distill_on_policy needs algo=distill"):
        check_rules(config("phase=distill_on_policy", "teacher.path=a/b", "algo=grpo"))
    with pytest.raises(ConfigError, match=r"phase.module.divergence='kl': expected forward_kl"):
        check_rules(config("phase=distill_kd", "data=lessons", "data.folder=x", "phase.module.divergence=kl"))


def test_a_model_made_by_another_run_says_how(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"make it first with: \S*python recipes/pipeline.py"):
        check_rules(compose_config("train", ["experiment=mini_r1_zero", f"paths.output_dir={tmp_path}"]))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("gpu_memory_utilization", "1.5", "a share between 0 and 1"),
        ("sleep_level", "3", "0, 1 or 2"),
        ("timeout_s", "0", "> 0"),
        ("parity_tolerance", "-1", "> 0"),
        ("max_num_seqs", "0", "> 0"),
    ],
)
def test_an_engines_options_have_ranges(key: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"rollout.{key}={value}.*: expected {expected}"):
        check_rules(config("rollout=vllm", "algo.sampler_correction=mask", f"rollout.{key}={value}"))


def test_an_engine_in_process_needs_no_correction_and_a_probe_may_be_off() -> None:
    for engine in ("group", "hf", "continuous"):
        check_rules(config(f"rollout={engine}"))
    served = ["rollout=vllm_server", "rollout.base_url=https://host/inner", "algo.sampler_correction=mask"]
    check_rules(config(*served, "rollout.parity_tolerance=null"))


def test_a_folder_called_vllm_is_no_vllm(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vllm").mkdir()
    found = type("Spec", (), {"origin": None})
    monkeypatch.setattr("lightning_r1.config.engine_rules.importlib.util.find_spec", lambda name: found)
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        check_rules(config("rollout=vllm", "algo.sampler_correction=mask"))
    found.origin = "/site-packages/vllm/__init__.py"
    check_rules(config("rollout=vllm", "algo.sampler_correction=mask"))
