#!/usr/bin/env bash
# CoOp in the protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/coop/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
