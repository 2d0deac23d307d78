"""The batch script of a job: one file for all of its tasks, which runs without Slurm, too."""

from __future__ import annotations

import shlex

from panic.cluster.job import Job

HEAD = """\
#!/usr/bin/env bash
# Written by `panic slurm` for {name}. The tasks:
#   job.sh pin      decide how models are called, for all shards alike
#   job.sh task     what SLURM_ARRAY_TASK_ID says: a shard, or a training
#   job.sh merge    bring the shards into one store; the number of their array may follow
set -euo pipefail
cd {work}
panic=({panic})
configs=({configs})
overrides=({overrides})
folder={folder}
shards={shards}
num_tasks={num_tasks}
every_s={every_s}
scratch={scratch}
asked= # whether this task was warned (requeue) or ended (end)
trap 'asked=requeue' USR1
{setup}
"""
BODY = r"""
# The disk of this node, where stores are written: a network file system would corrupt them.
local_disk() {
  if [ -z "$scratch" ]; then
    echo "No disk of this node is known: SLURM_TMPDIR and TMPDIR are not set. panic slurm --scratch PATH" >&2
    exit 2
  fi
  export TMPDIR=$scratch
}

note() {
  printf '%s on %s, job %s, restart %s\n' "$1" "$HOSTNAME" "$me" "${SLURM_RESTART_COUNT:-0}" >"$state"
}

# Whether Slurm has a job in its queue. Where it does not say, as when it is busy, the job counts as alive.
is_alive() {
  local said
  case $1 in
    '') return 1 ;;
    local-*)
      kill -0 "${1#local-}" 2>/dev/null
      return
      ;;
  esac
  if said=$(squeue --noheader --jobs "$1" 2>&1); then
    [ -n "$said" ]
    return
  fi
  case $said in
    *"Invalid job id"*) return 1 ;;
  esac
  echo "Slurm does not say whether job $1 has ended: $said" >&2
}

# A signal that comes while bash reads a command in parentheses can spoil what it reads: there is none here.
read_holder() {
  holder=
  read -r holder 2>/dev/null <"$lock" || true
}

# One task at a time: the lock says which job performs it. What is left of a job that ended is taken over; of
# two that do so at once, the one whose number stays.
lock() {
  if ! (set -o noclobber && printf '%s\n' "$me" >"$lock") 2>/dev/null; then
    read_holder
    if [ "$holder" != "$me" ]; then
      if ! is_alive "$holder"; then
        printf '%s\n' "$me" >"$lock"
        sleep 1
        read_holder
      fi
      if [ "$holder" != "$me" ]; then
        echo "Task $task is performed by job $holder already: $lock" >&2
        exit 1
      fi
    fi
  fi
}

# The store on this node's disk goes when its last snapshot has been taken, which 0 promises; a run that was
# told twice to stop ends without one. A child that is ended before it has become its command comes here, too.
finish() {
  if [ "$BASHPID" != "$$" ]; then return; fi
  if [ -n "${store:-}" ] && [ -e "$store" ]; then
    case ${code:-none} in
      0) rm -rf "$store" ;;
      *)
        mkdir -p "$folder/logs/$name"
        cp "$store"/logs/* "$folder/logs/$name/" 2>/dev/null || true
        if "${panic[@]}" snapshot "$store" "$folder/tasks/$name" --quiet; then
          rm -rf "$store"
        else
          echo "No snapshot could be taken: what was computed stays on $HOSTNAME in $store" >&2
        fi
        ;;
    esac
  fi
  read_holder
  if [ "$holder" = "$me" ]; then rm -f "$lock"; fi
}

# What an earlier attempt has left on this node becomes the snapshot if it has all of that, or is set aside.
take_left() {
  if [ -e "$store/store.sqlite" ] && [ -e "$folder/tasks/$name/store.sqlite" ]; then
    if ! "${panic[@]}" snapshot "$store" "$folder/tasks/$name" --quiet; then
      echo "The store of an earlier attempt is set aside: $store-left-$SECONDS-$$ on $HOSTNAME" >&2
      mv "$store" "$store-left-$SECONDS-$$"
    fi
  fi
}

pin() {
  local place
  for place in "${!configs[@]}"; do
    if [ ! -e "$folder/pins/$place.json" ]; then # shards that have begun keep theirs
      "${panic[@]}" pin "${configs[place]}" ${overrides[@]+"${overrides[@]}"} \
        --output "$folder/pins/$place.json"
    fi
  done
}

# Performs a command that takes a request to stop after the batch in flight, and asks it when Slurm warns;
# once, since a second request would end it at once.
# A signal ends `wait` with a code of its own: then the child's is asked for once more, also if it has ended.
perform() {
  local child woken told=
  if [ -n "$asked" ]; then
    code=143
    return
  fi
  "$@" &
  child=$!
  trap 'asked=requeue woken=1; ask_to_stop' USR1
  trap 'asked=${asked:-end} woken=1 told=1' TERM INT # the child has had that signal itself
  if [ -n "$asked" ]; then ask_to_stop; fi
  while true; do
    code=0 woken=
    wait "$child" || code=$?
    if [ -z "$woken" ]; then break; fi
  done
  trap '' USR1 # what it has come to is about to be written down
  trap - TERM INT
}

# A child that is this shell still, and not yet its command, would lose the request.
ask_to_stop() {
  local own
  if [ -z "$told" ]; then
    told=1
    own=$(words_of "$$")
    while [ -n "$own" ] && [ "$(words_of "$child")" = "$own" ]; do sleep 0.05; done
    kill -TERM "$child" 2>/dev/null || true
  fi
}

words_of() {
  if [ -d /proc/self ]; then
    tr '\0' ' ' <"/proc/$1/cmdline"
  else
    ps -ww -o args= -p "$1"
  fi 2>/dev/null || true
}

shard() {
  local place number from=()
  place=$(((task - 1) / shards))
  number=$(((task - 1) % shards + 1))
  local_disk
  store=$scratch/panic-$me-$name
  take_left
  if [ -e "$folder/tasks/$name/store.sqlite" ]; then from=(--from "$folder/tasks/$name"); fi
  perform "${panic[@]}" run "${configs[place]}" ${overrides[@]+"${overrides[@]}"} --shard "$number/$shards" \
    --pins "$folder/pins/$place.json" --store "$store" ${from[@]+"${from[@]}"} \
    --set "snapshot.to=\"$folder/tasks/$name\"" --set "snapshot.every_s=$every_s"
}

task() {
  task=${SLURM_ARRAY_TASK_ID:?it says which task}
  printf -v name '%04d' "$task"
  me=${SLURM_ARRAY_JOB_ID:-}${SLURM_ARRAY_JOB_ID:+_}${SLURM_ARRAY_JOB_ID:+$task}
  me=${me:-${SLURM_JOB_ID:?it says which job}}
  lock=$folder/tasks/$name.lock
  state=$folder/tasks/$name.state
  lock
  trap finish EXIT
  note "running"
  PERFORM
  case $code:$asked in
    0:*) note "complete" ;;
    1:)
      note "failed with 1"
      exit 1
      ;;
    130:requeue | 143:requeue)
      note "requeued"
      finish
      trap - EXIT # the task may begin elsewhere at once
      scontrol requeue "$me"
      ;;
    *)
      note "ended with $code"
      exit "$code"
      ;;
  esac
}

# Whether a task that is not complete may still be: Slurm has it in its queue, under the number that it has
# written down, or, if a node failed before it wrote anything, in the array that this merge came with.
is_coming() {
  local holder
  holder=$(sed -n 's/^[^,]*, job \([^,]*\),.*/\1/p' "$folder/tasks/$name.state" 2>/dev/null || true)
  case $holder in
    local-*) return 1 ;;
  esac
  is_alive "$holder" || is_alive "${array:+${array}_$number}"
}

merge() {
  local number there=() incomplete=()
  for number in $(seq "$num_tasks"); do
    name=$(printf '%04d' "$number")
    if ! grep -q '^complete' "$folder/tasks/$name.state" 2>/dev/null; then
      if is_coming; then
        echo "Task $number is in the queue again: the merge comes after it." >&2
        exec scontrol requeue "$SLURM_JOB_ID"
      fi
      incomplete+=("$number")
    fi
    if [ -e "$folder/tasks/$name/store.sqlite" ]; then there+=("$folder/tasks/$name"); fi
  done
  if [ ${#there[@]} -gt 0 ]; then "${panic[@]}" merge "${there[@]}" --into "$folder/merged"; fi
  if [ ${#incomplete[@]} -gt 0 ]; then
    echo "These shards are not complete: ${incomplete[*]}. panic slurm --resubmit --folder $folder" >&2
    exit 1
  fi
}

case ${1:?pin, task or merge} in
  pin) pin ;;
  task) task ;;
  merge)
    array=${2:-}
    merge
    ;;
  *)
    echo "$1: pin, task or merge" >&2
    exit 2
    ;;
esac
"""
TRAINING = r'perform "${panic[@]}" train "${configs[0]}" ${overrides[@]+"${overrides[@]}"} --only "$task"'


def script(job: Job) -> str:
    """The script of a job, to be given to bash or sbatch."""
    words = " ".join(word for override in job.overrides for word in ("--set", shlex.quote(override)))
    given = "" if job.scratch is None else shlex.quote(str(job.scratch))
    head = HEAD.format(
        name=job.configs[0].name.replace("\n", " "),
        work=shlex.quote(str(job.work)),
        panic=shlex.join(job.panic),
        configs=" ".join(shlex.quote(str(config)) for config in job.configs),
        overrides=words,
        folder=shlex.quote(str(job.folder)),
        shards=job.shards,
        num_tasks=job.num_tasks,
        every_s=f"{job.snapshot_every_s:g}",
        scratch=given or "${SLURM_TMPDIR:-${TMPDIR:-}}",
        setup=job.setup,
    )
    return head + BODY.replace("PERFORM", TRAINING if job.is_training else "shard")


def write_script(job: Job) -> None:
    """Write the script of a job into its folder; a shell that reads an older one goes on reading that."""
    part = job.script.with_name(f"{job.script.name}.new")
    part.write_text(script(job), encoding="utf-8")
    part.chmod(0o755)
    part.replace(job.script)
