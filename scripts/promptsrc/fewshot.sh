#!/usr/bin/env bash
# PromptSRC in the protocol of ../cdc/fewshot.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/promptsrc/fewshot.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=PromptSRC exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/fewshot.sh" "$@"
