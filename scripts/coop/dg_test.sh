#!/usr/bin/env bash
# CoOp in the protocol of ../cdc/dg_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/coop/dg_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/dg_test.sh" "$@"
