# The Python environment of the project, for run.sh, test.sh and .ci/run, which source this file:
#
#     ensure_environment [EXTRA...]    make .venv fit pyproject.toml and constraints.txt; sets PYTHON
#
# A second call installs nothing: .venv/panic-installed holds the checksum of both files, the place and the
# extras. .venv/panic-installing names the process that installs; if it is gone, the installation was
# interrupted and .venv is made again. PANIC_PYTHON names the interpreter to build with;
# PANIC_VENV names a ready environment, which is used as it is. Needs nothing newer than bash 3.2.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${PANIC_VENV:-$ROOT/.venv}
PYTHON=$VENV/bin/python

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# version PYTHON: "3.11", or nothing where it does not run (a shim without its version, a broken link).
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# started PID: when the process started, so that another one with a recycled PID is not taken for it.
# Empty where there is no such process, or only its remains.
started() {
  if [ -r "/proc/$1/stat" ]; then
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
  else
    ps -o lstart= -p "$1" 2>/dev/null || true
  fi
}

# find_python: the path of a Python 3.11, else 3.12, that can make environments; says what it saw otherwise.
find_python() {
  local wanted name path found seen=""
  for wanted in 3.11 3.12; do
    for name in ${PANIC_PYTHON:+"$PANIC_PYTHON"} "python$wanted" python3 python; do
      while IFS= read -r path; do
        found=$(version "$path")
        if [ "$found" = "$wanted" ]; then
          if "$path" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s\n' "$path"
            return
          fi
          found="$found, without venv: install python$found-venv"
        fi
        case "$seen" in *"$path ("*) ;; *) seen="$seen"$'\n'"  $path (${found:-does not run})" ;; esac
      done < <(type -ap -- "$name")
      if [ -n "${PANIC_PYTHON:-}" ]; then break; fi
    done
  done
  fail "panic needs Python 3.11 (3.12 is declared, but untested) and found none." \
    "Seen:${seen:- no Python at all}"$'\n'"Install Python 3.11, or name one: PANIC_PYTHON=/path/to/python3.11 $0"
}

# pip_install MARKER ARGUMENT...: the marker names pip itself, which outlives a script that is killed.
pip_install() {
  bash -c 'source "$1"; echo "$$ $(started $$)" >"$2"; shift 2; cd "$ROOT"; exec "$PYTHON" -m pip install "$@"' \
    bash "$ROOT/scripts/environment.sh" "$1" --disable-pip-version-check --constraint constraints.txt --editable "${@:2}"
}

ensure_environment() {
  if [ -n "${PANIC_VENV:-}" ]; then
    [ -x "$PYTHON" ] || fail "PANIC_VENV=$PANIC_VENV has no bin/python."
    return
  fi
  local stamp=$VENV/panic-installed marker=$VENV/panic-installing
  local extra sum="" place="" installed="" wanted installer since="" now base quiet=--quiet
  if [ -f "$marker" ]; then
    read -r installer since <"$marker" || true
    if [ -n "$since" ] && [ "$(started "$installer")" = "$since" ]; then
      fail "Another installation into $VENV is under way (PID $installer); wait for it to end."
    fi
    say "The last installation into $VENV was interrupted: making it again."
    rm -rf "$VENV"
  fi
  if [ -f "$stamp" ]; then
    { read -r sum && read -r place && read -r installed; } <"$stamp" || true
    if [ "$place" != "$ROOT" ] || [ -z "$(version "$PYTHON")" ]; then
      say "$VENV was made for another place or its Python is gone: making it again."
      rm -rf "$VENV"
      installed=""
    fi
  fi
  wanted=$installed
  for extra in "$@"; do
    case ",$wanted," in *",$extra,"*) ;; *) wanted=${wanted:+$wanted,}$extra ;; esac
  done
  now=$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum)
  if [ -f "$stamp" ] && [ "$sum" = "$now" ] && [ "$wanted" = "$installed" ]; then return; fi

  if [ -d "$VENV" ]; then
    case "$(version "$PYTHON")" in
      3.11 | 3.12) ;;
      *) fail "$VENV is no environment of Python 3.11 or 3.12: delete it and run this again." ;;
    esac
    echo "$$ $(started $$)" >"$marker"
  else
    base=$(find_python)
    if [ "$(version "$base")" != 3.11 ]; then say "Note: panic is tested on Python 3.11; this is $(version "$base")."; fi
    mkdir -p "$VENV"
    echo "$$ $(started $$)" >"$marker"
    say "Making $VENV with $base"
    "$base" -m venv "$VENV"
  fi
  say "Installing panic${wanted:+ with $wanted} into $VENV (minutes the first time)"
  if [ -t 1 ]; then quiet=""; fi
  pip_install "$marker" ".${wanted:+[$wanted]}" ${quiet:+"$quiet"} >&2 ||
    fail "The installation failed (see above). Nothing else was changed; run this again to start it over."
  printf '%s\n' "$now" "$ROOT" "$wanted" >"$stamp"
  rm -f "$marker"
}
