#!/usr/bin/env bash
# CLIP-ICM in the protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/clip_icm/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=CLIPICM exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
