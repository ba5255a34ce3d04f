#!/usr/bin/env bash
# CoCoOp in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/cocoop/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CoCoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
