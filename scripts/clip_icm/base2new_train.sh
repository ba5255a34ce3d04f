#!/usr/bin/env bash
# CLIP-ICM in the same protocol: estimate the invariant map on the base classes of a data set, and test on them.
#
#     bash scripts/clip_icm/base2new_train.sh DATASET SEED [KEY VALUE ...]
#
# Arguments, environment variables and folders: see ../cdc/base2new_train.sh.
set -euo pipefail
TRAINER=CLIPICM exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_train.sh" "$@"
