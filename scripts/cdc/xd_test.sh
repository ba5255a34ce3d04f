#!/usr/bin/env bash
# Test on one data set what xd_train.sh has trained on another one:
#
#     bash scripts/cdc/xd_test.sh DATASET SEED [KEY VALUE ...]
#
# The run lies in OUTPUT/evaluation/<trainer>/<cfg>_<n>shots/DATASET/seed<SEED>. Environment variables, besides those in
# common.sh (DATA, OUTPUT, SHOTS, TRAINER, CFG, PYTHON, TAG, TRAINED, CALIBRATED):
#
#     SOURCE    data set that was trained on (default: shapes for generated data sets, else imagenet; a test of another
#               one's model lies in <cfg>+from_<SOURCE>_<n>shots/...)
#     LOADEP    epoch to test (default: what the training run tested; another one: in <cfg>+epoch<n>_<n>shots/...)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usual=imagenet
! generated "${1-}" || usual=shapes
SOURCE=${SOURCE:-$usual}
[[ -f $ROOT/configs/datasets/$SOURCE.yaml ]] ||
    die "SOURCE must be one of $(listing "$ROOT"/configs/datasets/*.yaml), got '$SOURCE'"

CLASSES=all FROM=""
configure "$@"
if has_training; then
    [[ $SOURCE == "$usual" ]] || FROM=+from_$SOURCE
    place_run
    model_dir=$OUTPUT/$(trained_run)
    find_model "$model_dir" xd_train.sh
    find_calibration "$model_dir"
    folder=$OUTPUT/$EVALUATION
    skip_if_finished "$folder" "$MODEL_FILE"
    launch "$folder" all --model-dir "$model_dir" ${LOADEP:+--load-epoch "$LOADEP"} --eval-only
else
    find_calibration "$OUTPUT/${EVALUATION%/"$DATASET"/*}/$SOURCE/seed$SEED"
    folder=$OUTPUT/$EVALUATION
    skip_if_finished "$folder"
    launch "$folder" all --eval-only
fi
