#!/usr/bin/env bash
# Test on the new classes of a data set what base2new_train.sh has trained on the base classes:
#
#     bash scripts/cdc/base2new_test.sh DATASET SEED [KEY VALUE ...]
#
# The run lies in OUTPUT/base2new/test_new/DATASET/shots_<n>/<trainer>/<cfg>/seed<SEED>. Environment variables, besides
# those in common.sh (DATA, OUTPUT, SHOTS, TRAINER, CFG, PYTHON, TAG, TRAINED, CALIBRATED):
#
#     SUB       classes to test on: new (default), or base, in test_base/...
#     LOADEP    epoch to test (default: what the training run tested; another one is tested in <cfg>+epoch<n>/...)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CLASSES=half SOURCE=
configure "$@"
SUB=${SUB:-new}
[[ $SUB == new || $SUB == base ]] || die "SUB must be new or base, got '$SUB'"

if has_training; then
    model_dir=$OUTPUT/base2new/train_base/$(trained_run)
    find_model "$model_dir" base2new_train.sh
    find_calibration "$model_dir"
    folder=$OUTPUT/base2new/test_$SUB/$RUN
    skip_if_finished "$folder" "$MODEL_FILE"
    launch "$folder" "$SUB" --model-dir "$model_dir" ${LOADEP:+--load-epoch "$LOADEP"} --eval-only
else
    find_calibration "$OUTPUT/base2new/test_base/$RUN"
    folder=$OUTPUT/base2new/test_$SUB/$RUN
    skip_if_finished "$folder"
    launch "$folder" "$SUB" --eval-only
fi
