#!/usr/bin/env bash
# Zero-shot CLIP in the same protocol: nothing is trained, SUB=base and SUB=new (default) are tested.
#
#     bash scripts/zsclip/base2new_test.sh DATASET SEED [KEY VALUE ...]
#
# Arguments, environment variables and folders: see ../cdc/base2new_test.sh.
set -euo pipefail
TRAINER=ZeroshotCLIP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
