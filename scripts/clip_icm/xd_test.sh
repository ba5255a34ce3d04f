#!/usr/bin/env bash
# CLIP-ICM in the protocol of ../cdc/xd_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/clip_icm/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CLIPICM exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_test.sh" "$@"
