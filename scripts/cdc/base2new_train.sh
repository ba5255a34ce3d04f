#!/usr/bin/env bash
# Train on the base classes of a data set, and test on them:
#
#     bash scripts/cdc/base2new_train.sh DATASET SEED [KEY VALUE ...]
#
# The run lies in OUTPUT/base2new/train_base/DATASET/shots_<n>/<trainer>/<cfg>/seed<SEED>. Environment variables (DATA,
# OUTPUT, SHOTS, TRAINER, CFG, PYTHON, TAG): see common.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CLASSES=half SOURCE=
configure "$@"
has_training || die "$TRAINER has nothing to train: run base2new_test.sh"

folder=$OUTPUT/base2new/train_base/$RUN
skip_if_finished "$folder"
launch "$folder" base
