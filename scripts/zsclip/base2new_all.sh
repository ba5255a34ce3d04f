#!/usr/bin/env bash
# Zero-shot CLIP in the protocol of ../cdc/base2new_all.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip/base2new_all.sh [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_all.sh" "$@"
