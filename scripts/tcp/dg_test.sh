#!/usr/bin/env bash
# TCP in the protocol of ../cdc/dg_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/dg_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/dg_test.sh" "$@"
