#!/usr/bin/env bash
# CLIP's prompt ensemble, protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip2/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP2 exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
