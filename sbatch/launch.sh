# shellcheck shell=bash
# What the job scripts share; they source it. Nothing here is for a cluster to edit: that is env.sh.
set -eo pipefail
# shellcheck source=sbatch/env.sh
source "$LIGHTNING_R1_ROOT/sbatch/env.sh"
set -u # not before: module systems read variables that are not set

# scancel and preemption send SIGTERM to this shell as well as to the tasks. It has to live until they have saved.
trap true TERM

# Jobs share nodes and sometimes hosts: their ports follow from their numbers.
job_port() { echo $((20000 + SLURM_JOB_ID % 6000 * 2)); }

# Processes on each node: as many as --ntasks-per-node says, else one a GPU, else one.
tasks_per_node() {
    local gpus=${SLURM_GPUS_ON_NODE:-1}
    echo "${SLURM_NTASKS_PER_NODE:-$((gpus > 0 ? gpus : 1))}"
}

# open_run VERB OVERRIDE...: sets RUN_DIR, the run's folder, MODEL_PATH, what it starts from, and LOG, this job's file in
# the folder. A mistake in the config ends the job here, before any node works.
open_run() {
    local verb=$1 said
    shift
    if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" resume=auto; fi # begun anew only once
    said=$(python -m lightning_r1.config.begin "$verb" --value model.path "$@")
    { read -r RUN_DIR && read -r MODEL_PATH; } <<< "$said"
    export MODEL_PATH
    LOG=$RUN_DIR/slurm/${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.log
    echo "$(date +%FT%T) job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST: $LOG"
}

# ranks VERB NODES NODELIST OVERRIDE...: the recipe, on so many of the job's nodes, one process for each task.
# In the background say EXEC=exec, so that its number is srun's.
ranks() {
    local verb=$1 nodes=$2 nodelist=$3 per_node
    shift 3
    per_node=$(tasks_per_node)
    if [ -z "${MASTER_ADDR:-}" ]; then read -r MASTER_ADDR < <(scontrol show hostnames "$nodelist"); fi
    export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-$(job_port)}
    # All processors of a node are for all its ranks: rewards and sandboxes are processes too. A rank that fails ends
    # the others.
    ${EXEC:-} srun --nodes="$nodes" --nodelist="$nodelist" --ntasks=$((nodes * per_node)) --ntasks-per-node="$per_node" \
        --overcommit --cpu-bind=none --kill-on-bad-exit=1 --label --output="$LOG" --open-mode=append \
        python "$LIGHTNING_R1_ROOT/recipes/$verb.py" "$@" resume=auto
}

# close_run STATUS: tells how the job ended, with the last lines where it went wrong, and ends with the same status.
close_run() {
    case $1 in
        0) echo "$(date +%FT%T) finished: $RUN_DIR" ;;
        # 143 is a rank that Slurm ended while another was still about to say 75
        75 | 143) echo "$(date +%FT%T) interrupted; started again, it goes on: $RUN_DIR" ;;
        *)
            echo "$(date +%FT%T) ended with status $1; the last lines of $LOG:"
            tail -n 20 "$LOG" 2> /dev/null || true
            ;;
    esac
    exit "$1"
}
