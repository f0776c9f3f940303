#!/usr/bin/env bash
# One experiment as Slurm job arrays: the validation in N parts, their merge, the test in N parts, its merge. Run it on the login
# node, in a folder that all nodes see; it submits four jobs, each of which waits for the one before.
#
#   ./slurm.sh RUN N PRESET|FILE -m MODEL [options of xpatch eval]
#
# Further options for sbatch go into SBATCH_OPTIONS, such as "--gres=gpu:1 --time=02:00:00 --mem=24G".
set -euo pipefail
run=${1:?name the folder of the run} parts=${2:?name the number of parts}
shift 2
options=${SBATCH_OPTIONS:---cpus-per-task=8 --mem=16G}
asked=$(printf '%q ' "$@")

hand_in() { # NAME COMMAND [options of sbatch]: its number
  local name=$1 command=$2
  shift 2
  # A part that is submitted again resumes where it was, so a requeued one loses nothing but its last seconds.
  sbatch --parsable --requeue --job-name "xpatch-$name" --output "$run.$name.%A-%a.log" $options "$@" --wrap "$command"
}

shards() { seq -f "$run.$1-%.0f" "$parts" | tr '\n' ' '; }
one='--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"'

validation=$(hand_in validation "xpatch eval $asked --stage validation $one -o $run.validation-\$SLURM_ARRAY_TASK_ID" \
  --array "1-$parts")
chosen=$(hand_in choose "xpatch merge $(shards validation) -o $run.validation" --dependency "afterok:$validation")
test=$(hand_in test "xpatch eval $asked --stage test --layer-from $run.validation $one -o $run.test-\$SLURM_ARRAY_TASK_ID" \
  --array "1-$parts" --dependency "afterok:$chosen")
whole=$(hand_in merge "xpatch merge $(shards test) -o $run" --dependency "afterok:$test")
echo "jobs $validation, $chosen, $test and $whole make $run"
