#!/usr/bin/env bash
# MMRL in the protocol of ../cdc/base2new_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/mmrl/base2new_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=MMRL exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
