#!/usr/bin/env bash
# Zero-shot CLIP in the protocol of ../cdc/dg_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip/dg_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/dg_test.sh" "$@"
