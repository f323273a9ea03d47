#!/bin/bash
# One part of a job; submit.sh makes an array of it.
#SBATCH --job-name=taskvec
#SBATCH --cpus-per-task=8
#SBATCH --mem=2G
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# A minute before the time is up, this script hears it, and the part stops where it can go on.
#SBATCH --signal=B:TERM@60

job=${1:?"usage: part.sh JOB"}
part=${SLURM_ARRAY_TASK_ID:?"run as a job array"}

taskvec run "$job" --part "$part" --memory 1GiB --threads "${SLURM_CPUS_PER_TASK:-8}" &
worker=$!
trap 'kill -TERM "$worker" 2> /dev/null' TERM
wait "$worker"
code=$?
# A signal ends the first wait, but not the worker.
while kill -0 "$worker" 2> /dev/null; do
    wait "$worker"
    code=$?
done

# 4: storage or network; 143: the time was up; 137: killed, for instance for memory. All go on from where they were.
# 1, 2 and 3 need a person: inputs that do not fit, a wrong command, an input that changed.
case $code in
    4 | 137 | 143)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
            exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_${part}"
        fi
        ;;
esac
exit "$code"
