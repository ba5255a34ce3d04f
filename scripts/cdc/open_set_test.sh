#!/usr/bin/env bash
# Test what base2new_train.sh has trained on the base classes of a data set on an open set: the base classes' own test
# images, and images of classes that the model does not know, under the names of the base classes:
#
#     bash scripts/cdc/open_set_test.sh DATASET SEED [KEY VALUE ...]
#
# The others are the test images of the new classes (near) and of other data sets (far). The run lies in
# OUTPUT/open_set/DATASET/shots_<n>/<trainer>/<cfg>/seed<SEED>. Environment variables, besides those in common.sh (DATA,
# OUTPUT, SHOTS, TRAINER, CFG, PYTHON, TAG, TRAINED, CALIBRATED):
#
#     FAR       the other data sets, as "food101 ucf101"; may be empty (default: of dtd, eurosat and oxford_flowers, or
#               of the generated digits, symbols and textures, those that are there, but for DATASET)
#     LOADEP    epoch to test (default: what the training run tested; another one is tested in <cfg>+epoch<n>/...)
#
# A finished run that lacks one of the data sets is run again, with those that it has.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

CLASSES=half SOURCE=
configure "$@"
if [[ -z ${FAR+set} ]]; then
    FAR=""
    usual="dtd eurosat oxford_flowers" # their folders have the same names
    ! generated "$DATASET" || usual="digits symbols textures"
    for name in $usual; do
        if [[ $name != "$DATASET" ]] && { generated "$name" || [[ -d $DATA/$name ]]; }; then
            FAR+="${FAR:+ }$name"
        fi
    done
    echo "FAR is not given: taking ${FAR:-no other data set, as none of $usual is there}"
fi
read -ra far <<< "$FAR"
for name in ${far[@]+"${far[@]}"}; do
    [[ -f $ROOT/configs/datasets/$name.yaml ]] ||
        die "FAR must be names of $(listing "$ROOT"/configs/datasets/*.yaml), got '$name'"
    [[ $name != "$DATASET" ]] || die "FAR must be other data sets than $DATASET, whose new classes are tested anyway"
    [[ $(printf '%s\n' "${far[@]}" | grep -cxF "$name") == 1 ]] || die "FAR names $name twice"
done

model=()
MODEL_FILE=""
if has_training; then
    model_dir=$OUTPUT/base2new/train_base/$(trained_run)
    find_model "$model_dir" base2new_train.sh
    find_calibration "$model_dir"
    model=(--model-dir "$model_dir" ${LOADEP:+--load-epoch "$LOADEP"})
else
    find_calibration "$OUTPUT/base2new/test_base/$RUN"
fi
folder=$OUTPUT/open_set/$RUN
lacking=""
if [[ -f $folder/results.json ]]; then
    there=$(sed -n 's|.*"\([A-Za-z0-9_.-]*\)/images".*|\1|p' "$folder/results.json")
    for name in ${far[@]+"${far[@]}"}; do
        grep -qxF "$name" <<< "$there" || lacking+=", $name"
    done
    for name in $there; do
        printf '%s\n' near ${far[@]+"${far[@]}"} | grep -qxF "$name" || far+=("$name")
    done
fi
if [[ -z $lacking ]]; then
    skip_if_finished "$folder" ${MODEL_FILE:+"$MODEL_FILE"}
else
    echo "Run again, as ${lacking#, } is not in $folder/results.json"
    [[ -z ${ASK:-} ]] || exit 1
fi
files=$(printf ", 'configs/datasets/%s.yaml'" ${far[@]+"${far[@]}"})
[[ ${#far[@]} -gt 0 ]] || files=""
launch "$folder" base ${model[@]+"${model[@]}"} --eval-only TEST.OPEN_SET True TEST.FAR_SETS "[${files#, }]"
