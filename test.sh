#!/usr/bin/env bash
# Makes the environment with what tests need and runs pytest. Arguments go to pytest:
#     ./test.sh                    all tests but the slow ones, in as many processes as there are cores (2 to 4)
#     ./test.sh -m slow            the slow ones, likewise
#     ./test.sh tests/store -k lock
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

ensure_environment test
cd "$ROOT"
if [ $# = 0 ] || [ "$*" = "-m slow" ]; then
  cores=$("$PYTHON" -c 'import os; print(min(4, max(2, os.cpu_count() or 2)))')
  set -- "$@" -n "$cores" --dist loadfile
fi
exec "$PYTHON" -m pytest "$@"
