#!/usr/bin/env bash
# CLIP-ICM in the same protocol: test the base classes' map on the new classes (default) or, with SUB=base, on the base
# classes.
#
#     bash scripts/clip_icm/base2new_test.sh DATASET SEED [KEY VALUE ...]
#
# Arguments, environment variables and folders: see ../cdc/base2new_test.sh.
set -euo pipefail
TRAINER=CLIPICM exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
