"""Measure ours beside others', alternating in one run.

python recipes/benchmark.py benchmark=grpo_step_vs_trl
python recipes/benchmark.py benchmark=grpo_step_vs_trl benchmark.lengths=fixed
python recipes/benchmark.py benchmark=grpo_step_0_5b            # a Qwen2.5-0.5B shape with random weights, on a CPU
python recipes/benchmark.py benchmark=grpo_step_h200            # a 1.5B shape on a GPU, with variants of both
python recipes/benchmark.py benchmark=scaling
python recipes/benchmark.py benchmark=scale_on_paper           # sizes on clusters, by arithmetic
python recipes/benchmark.py benchmark=presets_on_paper         # what the experiments need and take, by arithmetic
python recipes/benchmark.py benchmark=update_7b_h200           # updates of a 7B shape on one H200
python recipes/benchmark.py benchmark=learning_vs_trl
python recipes/benchmark.py benchmark=sandbox
python recipes/benchmark.py benchmark=rollout "benchmark.run=[hf,group,group_compiled]"
python recipes/benchmark.py benchmark=rollout_0_5b
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_r1.config.compose import recipe


@recipe("benchmark")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.benchmarks.result import save

    chosen = config["benchmark"]
    module = import_module(f"lightning_r1.benchmarks.{chosen.get('module', chosen['name'])}")
    save(module.benchmark(chosen), Path(config["paths"]["run_dir"]))


if __name__ == "__main__":
    main()
