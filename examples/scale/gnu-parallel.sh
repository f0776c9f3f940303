#!/usr/bin/env bash
# One experiment in N parts with GNU parallel: on the cores of this machine, or with PARALLEL="--sshlogin a,b" on others that
# see the same folders. The same command resumes what was stopped.
#
#   ./gnu-parallel.sh RUN N PRESET|FILE -m MODEL [options of xpatch eval]
set -euo pipefail
run=${1:?name the folder of the run} parts=${2:?name the number of parts}
shift 2
xpatch=${XPATCH:-xpatch}
jobs=${JOBS:-$parts}

part() { # STAGE [more options]: a stage in N parts, and the run that they make
  local stage=$1
  shift
  local shards=()
  for ((i = 1; i <= parts; i++)); do shards+=("$run.$stage-$i"); done
  # Without --quote the shell that parallel starts would read the options a second time.
  parallel --halt now,fail=1 --jobs "$jobs" --quote \
    $xpatch eval "$@" --stage "$stage" --shard "{}/$parts" -o "$run.$stage-{}" --quiet ::: $(seq "$parts")
  $xpatch merge "${shards[@]}" -o "$merged" --quiet
}

merged=$run.validation
part validation "$@"
merged=$run
part test "$@" --layer-from "$run.validation"
