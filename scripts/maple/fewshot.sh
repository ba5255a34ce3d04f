#!/usr/bin/env bash
# MaPLe in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/maple/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=MaPLe exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
