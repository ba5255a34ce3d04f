#!/usr/bin/env bash
# TCP in the protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
