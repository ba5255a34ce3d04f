#!/usr/bin/env bash
# CLIP's prompt ensemble, protocol of ../cdc/xd_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip2/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP2 exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_test.sh" "$@"
