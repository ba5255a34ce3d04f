#!/usr/bin/env bash
# TCP in the protocol of ../cdc/base2new_all.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/base2new_all.sh [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_all.sh" "$@"
