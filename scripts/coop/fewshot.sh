#!/usr/bin/env bash
# CoOp in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/coop/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CoOp exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
