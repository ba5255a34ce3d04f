#!/usr/bin/env bash
# TCP in the protocol of ../cdc/base2new_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/base2new_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
