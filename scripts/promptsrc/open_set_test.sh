#!/usr/bin/env bash
# PromptSRC in the protocol of ../cdc/open_set_test.sh, which tells arguments, environment variables and folders:
#
#     bash scripts/promptsrc/open_set_test.sh DATASET SEED [KEY VALUE ...]
set -euo pipefail
TRAINER=PromptSRC exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/open_set_test.sh" "$@"
