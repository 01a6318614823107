"""Measure ours beside others', alternating in one run.

python recipes/benchmark.py benchmark=grpo_step_vs_trl
python recipes/benchmark.py benchmark=grpo_step_vs_trl benchmark.lengths=fixed
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

    module = import_module(f"lightning_r1.benchmarks.{config['benchmark']['name']}")
    save(module.benchmark(config["benchmark"]), Path(config["paths"]["run_dir"]))


if __name__ == "__main__":
    main()
