#!/usr/bin/env bash
# Train on all classes of a data set, and test on them; xd_test.sh and dg_test.sh test the run on other data sets:
#
#     bash scripts/cdc/xd_train.sh imagenet SEED [KEY VALUE ...]
#
# The run lies in OUTPUT/DATASET/<trainer>/<cfg>_<n>shots/seed<SEED>. Environment variables (DATA, OUTPUT, SHOTS,
# TRAINER, CFG, PYTHON, TAG): see common.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CLASSES=all SOURCE=
configure "$@"
has_training || die "$TRAINER has nothing to train: run xd_test.sh"

folder=$OUTPUT/$RUN
skip_if_finished "$folder"
launch "$folder" all
