#!/usr/bin/env bash
# CLIP-ICM in the protocol of ../cdc/base2new_all.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/clip_icm/base2new_all.sh [KEY VALUE ...]
set -euo pipefail
TRAINER=CLIPICM exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_all.sh" "$@"
