#!/usr/bin/env bash
# TCP in the protocol of ../cdc/xd_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/xd_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/xd_test.sh" "$@"
