#!/usr/bin/env bash
# KgCoOp in the protocol of ../cdc/base2new_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/kgcoop/base2new_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=KgCoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
