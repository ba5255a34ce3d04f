#!/usr/bin/env bash
# MMRL in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/mmrl/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=MMRL exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
