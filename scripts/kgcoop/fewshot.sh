#!/usr/bin/env bash
# KgCoOp in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/kgcoop/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=KgCoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
