#!/usr/bin/env bash
# MMRL in the protocol of ../cdc/base2new_all.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/mmrl/base2new_all.sh [KEY VALUE ...]
set -euo pipefail
TRAINER=MMRL exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_all.sh" "$@"
