#!/usr/bin/env bash
# CLIP's prompt ensemble, protocol of ../cdc/base2new_all.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/zsclip2/base2new_all.sh [KEY VALUE ...]
set -euo pipefail
TRAINER=ZeroshotCLIP2 exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_all.sh" "$@"
