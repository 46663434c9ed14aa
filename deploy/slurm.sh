#!/bin/bash
# Trains an experiment on several nodes:  sbatch deploy/slurm.sh digits-conv-lstm
# What to change: docs/distribution.md
#SBATCH --job-name=engram
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=engram-%j.log

set -euo pipefail
experiment=${1:?which experiment of params.yaml}
cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate
export DVC_STAGE="train@$experiment"
# A job that was preempted, or whose time is up, comes again: training goes on at its last
# checkpoint.
code=0
srun --kill-on-bad-exit=1 --output=engram-%j-%t.log python pipeline/train.py "$experiment" || code=$?
if [ $code -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
[ $code -eq 0 ] || exit $code
dvc commit --force "train@$experiment"
dvc repro "evaluate@$experiment"
