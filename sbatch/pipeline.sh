#!/usr/bin/env bash
# A whole graph of phases as Slurm jobs, on a login node: each starts when those it needs are done.
#   bash sbatch/pipeline.sh pipeline=r1 pipeline.general_traces=general.jsonl cluster.partition=gpu cluster.time=24:00:00
# Started again, it finds what is done and what still runs.
LIGHTNING_R1_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LIGHTNING_R1_ROOT
# shellcheck source=sbatch/env.sh
source "$LIGHTNING_R1_ROOT/sbatch/env.sh"
set -euo pipefail
exec python "$LIGHTNING_R1_ROOT/recipes/pipeline.py" cluster=slurm "$@"
