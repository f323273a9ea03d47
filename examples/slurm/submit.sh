#!/bin/bash
# Plans a transfer in parts, runs the parts as a job array, and commits when all of them are done:
#     submit.sh JOB OUT PARTS TARGET MINUEND SUBTRAHEND [OPTIONS OF transfer]
# All of these are paths that every node sees. If parts are missing in the end, `taskvec status JOB` names them:
#     sbatch --array=3,17-19 part.sh JOB
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
job=$1 out=$2 parts=$3
shift 3

taskvec plan transfer "$@" -o "$out" --parts "$parts" --job "$job"
# At most 32 at a time.
array=$(sbatch --parsable --array="0-$((parts - 1))%32" "$here/part.sh" "$job")
sbatch --dependency="afterok:$array" --cpus-per-task=2 --mem=1G --wrap="taskvec commit $(printf %q "$job")"
