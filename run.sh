#!/usr/bin/env bash
# Performs experiments; ./run.sh --help says how. Makes the environment first where it is missing.
# shellcheck disable=SC2119  # ensure_environment takes extras, not our arguments
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

LOGS=${PANIC_LOGS:-$ROOT/logs}

usage() {
  cat <<'TEXT'
Usage:
  ./run.sh                     perform configs/demo.yaml here and write its report
  ./run.sh CONFIG...           start experiments in the background, one after another; survives logout
  ./run.sh --wait CONFIG...    perform them in the foreground
  ./run.sh --status            what runs in the background, and how far it is
  ./run.sh --stop              ask it to stop: it finishes the batch in flight and keeps everything done
  ./run.sh --help

The store is ./panic-store, or what PANIC_STORE names. Giving the same config again continues it.
Settings are not changed here: `panic run CONFIG --set KEY=VALUE --store PATH` does.
Logs: what a background job says is in PANIC_LOGS (by default logs/ beside this script); what happens in an
experiment is in logs/ of the store.
Exit codes: 0 done, 1 failed, 2 a mistake in the command or a config, 130 interrupted.
TEXT
}

# -P: a folder named panic in the working directory is not this one.
panic() { "$PYTHON" -P -m panic "$@"; }

require_configs() {
  local config
  [ $# -gt 0 ] || { say "Name at least one config."; usage >&2; exit 2; }
  for config in "$@"; do
    case "$config" in -*) say "Unknown option $config"; usage >&2; exit 2 ;; esac
    [ -f "$config" ] || { say "There is no file $config"; exit 2; }
  done
}

demo() {
  local store=${PANIC_STORE:-$PWD/panic-store}
  panic run "$ROOT/configs/demo.yaml" --store "$store"
  panic report latest --store "$store" --quiet
  cat <<TEXT

Store:  $store
Report: $store/reports/demo.html
TEXT
}

detach() {
  panic run --dry-run "$@"
  local project name log pid setsid=""
  project=$("$PYTHON" -P -c 'import sys, panic; print(panic.load_config(sys.argv[1]).project)' "$1")
  mkdir -p "$LOGS"
  while
    name=${project}_run_$(date +%Y%m%d-%H%M%S)
    [ -e "$LOGS/$name.log" ]
  do sleep 1; done
  log=$LOGS/$name.log
  if command -v setsid >/dev/null; then setsid=setsid; fi
  PYTHONUNBUFFERED=1 nohup $setsid "$PYTHON" -P -m panic run "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  printf '%s\n' "$pid" "$(started "$pid")" "$(hostname)" "$*" >"$LOGS/$name.pid"
  await_begin "$pid" "$log"
  tell_job "Started in the background: PID $pid" "$log"
}

tell_job() {
  cat <<TEXT
$1
Log:     $2
Follow:  tail -f "$2"
State:   "$ROOT/run.sh" --status
Stop:    "$ROOT/run.sh" --stop
TEXT
}

# await_begin PID LOG: return as soon as the job shows progress; leave if it ends before.
await_begin() {
  local tick=0 code=0
  while [ -n "$(started "$1")" ]; do
    if grep -q '^runs ' "$2"; then return; fi
    if [ "$tick" = 50 ]; then tell_job "PID $1 is getting ready; it goes on without you, too (Ctrl-C)." "$2"; fi
    sleep 0.2
    tick=$((tick + 1))
  done
  wait "$1" || code=$?
  tail -n 20 "$2"
  if [ "$code" != 0 ]; then
    say "It failed before its first step (code $code). Log: $2"
    exit 1
  fi
  printf 'Done already: PID %s\nLog:     %s\n' "$1" "$2"
  exit
}

# jobs_do ACTION: call ACTION with (PID, log, configs) for each background job that still runs, and forget
# those of this machine that have ended.
jobs_do() {
  local file pid since host configs
  for file in "$LOGS"/*.pid; do
    [ -f "$file" ] || continue
    { read -r pid && read -r since && read -r host && IFS= read -r configs; } <"$file" || continue
    [ "$host" = "$(hostname)" ] || continue
    if [ -n "$since" ] && [ "$(started "$pid")" = "$since" ]; then
      "$1" "$pid" "${file%.pid}.log" "$configs"
    else
      rm -f "$file"
    fi
  done
}

show_job() {
  num_jobs=$((num_jobs + 1))
  printf 'PID %s: %s\n  log:  %s\n  last: %s\n' "$1" "$3" "$2" "$(tail -n 1 "$2" 2>/dev/null)"
}

stop_job() {
  num_jobs=$((num_jobs + 1))
  kill -TERM "$1" 2>/dev/null || return 0
  printf 'Asked PID %s to stop: %s\n' "$1" "$3"
}

status() {
  num_jobs=0
  jobs_do show_job
  if [ "$num_jobs" = 0 ]; then
    echo "Nothing runs in the background."
    local last
    # shellcheck disable=SC2012  # names are ours: newest first is all that is asked
    last=$(ls -t "$LOGS"/*_run_*.log 2>/dev/null | head -n 1 || true)
    if [ -n "$last" ]; then printf 'Last log: %s\n  last: %s\n' "$last" "$(tail -n 1 "$last")"; fi
  fi
}

stop() {
  num_jobs=0
  jobs_do stop_job
  if [ "$num_jobs" = 0 ]; then echo "Nothing runs in the background."; return; fi
  local waited=0
  while [ "$waited" -lt 60 ]; do
    num_jobs=0
    jobs_do count_job
    if [ "$num_jobs" = 0 ]; then echo "Stopped. Everything done is stored; the same command continues."; return; fi
    sleep 1
    waited=$((waited + 1))
  done
  echo "Still finishing the batch in flight after a minute: see --status."
  return 1
}

count_job() { num_jobs=$((num_jobs + 1)); }

case "${1:-}" in
  "") ensure_environment; demo ;;
  -h | --help) usage ;;
  --status) status ;;
  --stop) stop ;;
  --wait)
    shift
    require_configs "$@"
    ensure_environment
    exec "$PYTHON" -P -m panic run "$@"
    ;;
  *)
    require_configs "$@"
    ensure_environment
    detach "$@"
    ;;
esac
