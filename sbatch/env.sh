# shellcheck shell=bash
# The one file that a cluster edits: software, caches, network. Every job script reads it first, pipeline.sh too.
# As it is, it works on a plain host whose repository holds a .venv (make install).

# --- software -------------------------------------------------------------------------------------------------------
# module purge && module load cuda/12.8
VENV=${VENV:-$LIGHTNING_R1_ROOT/.venv}
if [ -d "$VENV/bin" ]; then PATH=$VENV/bin:$PATH; fi
# vLLM has pins of its own; make test-vllm puts it into .venv-vllm
if [ -x "$LIGHTNING_R1_ROOT/.venv-vllm/bin/python" ]; then VLLM_PYTHON=${VLLM_PYTHON:-$LIGHTNING_R1_ROOT/.venv-vllm/bin/python}; fi
export PATH VLLM_PYTHON=${VLLM_PYTHON:-python}

# --- where things lie: on a file system that every node sees ----------------------------------------------------------
# export LIGHTNING_R1_OUTPUT=/scratch/$USER/lightning-r1
# export HF_HOME=/scratch/$USER/huggingface
# compute nodes without internet: fetch models and data on the login node first, then
# export HF_HUB_OFFLINE=1 WANDB_MODE=offline
# export http_proxy=http://proxy:3128 https_proxy=http://proxy:3128 no_proxy=localhost,127.0.0.1,.cluster

# --- network between nodes ----------------------------------------------------------------------------------------------
# the interface that nodes reach each other by (ip -brief address), where the libraries choose a wrong one
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# export NCCL_IB_HCA=mlx5
# export NCCL_DEBUG=WARN
# the first node's address, where its host name does not resolve on the others
# export MASTER_ADDR=10.0.0.1

# --- processors ---------------------------------------------------------------------------------------------------------
# threads of a rank's own arithmetic; rewards have processes of their own
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export PYTHONUNBUFFERED=1
