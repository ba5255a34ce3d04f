#!/usr/bin/env bash
# Zero-shot CLIP in the protocol of ../cdc/xd_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_test.sh" "$@"
