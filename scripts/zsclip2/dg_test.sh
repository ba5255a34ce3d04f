#!/usr/bin/env bash
# Zero-shot CLIP with CLIP's prompt ensemble in the same protocol as ../cdc/dg_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip2/dg_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP2 exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/dg_test.sh" "$@"
