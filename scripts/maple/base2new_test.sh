#!/usr/bin/env bash
# MaPLe in the same protocol: test on the new classes (SUB=base: base classes) what base2new_train.sh has trained.
#
#     bash scripts/maple/base2new_test.sh DATASET SEED [KEY VALUE ...]
#
# Arguments, environment variables and folders: see ../cdc/base2new_test.sh. On photographs the published settings are
# CFG=vit_b16_c2_ep5_batch4_2ctx.
set -euo pipefail
TRAINER=MaPLe exec bash "$(dirname "${BASH_SOURCE[0]}")/../cdc/base2new_test.sh" "$@"
