# Sourced by the .sbatch files. What a site must say, and nothing else; all of it can be set before `sbatch`.
set -euo pipefail

# Where nemo-summer lies, the same path on every node. sbatch runs a copy of the script, so $0 does not tell.
export SUMMER_HOME="${SUMMER_HOME:-$SLURM_SUBMIT_DIR}"
cd -- "$SUMMER_HOME"
SUMMER_PYTHON="${SUMMER_PYTHON:-$SUMMER_HOME/.venv/bin/python}"

# The network interface between the nodes, where the default one is not it:
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# How srun finds the GPUs of a node; empty on nodes without:
# export SRUN_GPUS_PER_TASK=8
