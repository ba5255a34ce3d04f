#!/usr/bin/env bash
# KgCoOp in the protocol of ../cdc/xd_train.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/kgcoop/xd_train.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=KgCoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_train.sh" "$@"
