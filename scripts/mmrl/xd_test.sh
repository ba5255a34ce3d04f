#!/usr/bin/env bash
# MMRL in the protocol of ../cdc/xd_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/mmrl/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=MMRL exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_test.sh" "$@"
