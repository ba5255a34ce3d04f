#!/usr/bin/env bash
# MMRL in the protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/mmrl/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=MMRL exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
