#!/bin/bash
# A command of this project under Slurm: a federation over the nodes of one job, or an array whose
# tasks serve one queue of runs.
#
# scripts/submit.py slurm fills in the name, nodes, GPUs, variables and the command and keeps all
# else, so more #SBATCH lines, or modules to load, may be added here. The file is whole as it stands,
# too: sbatch deploy/slurm-job.sh scripts/train_federated.py with demo job_name=NAME
#SBATCH --job-name=scaling-fl
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.txt
# A minute before the time limit; the workers take up to 25 seconds to end in order.
#SBATCH --signal=TERM@60

# Slurm starts the batch script on the first node.
export MASTER_ADDR=${SLURMD_NODENAME:-$(hostname)}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# Each node is one machine of the federation, as WORLD_SIZE and RANK say.
code=0
srun --kill-on-bad-exit=0 bash -c \
  'export WORLD_SIZE=$SLURM_NNODES RANK=$SLURM_NODEID; exec ./run-local.sh "$@"' \
  run-local "$@" || code=$?

# What can be tried again goes on after its last checkpoint; a configuration that cannot be run
# (exit code 2) and a job that was cancelled stay as they are.
if [[ $code != 0 && $code != 2 && ${SLURM_RESTART_COUNT:-0} -lt 10 ]]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
fi
exit "$code"
