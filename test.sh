#!/usr/bin/env bash
# Makes the environment with what tests need and runs pytest. Arguments go to pytest:
#     ./test.sh                    all tests but the slow ones
#     ./test.sh -m slow            the slow ones
#     ./test.sh tests/store -k lock
set -euo pipefail
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

ensure_environment test
cd "$ROOT"
exec "$PYTHON" -m pytest "$@"
