#!/usr/bin/env bash
# TCP in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/tcp/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=TCP exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
