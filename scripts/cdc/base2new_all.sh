#!/usr/bin/env bash
# Base to new on many data sets and seeds: for each, base2new_train.sh and base2new_test.sh.
#
#     bash scripts/cdc/base2new_all.sh [KEY VALUE ...]
#
# Environment variables, besides those of these scripts:
#
#     DATASETS    default: the eleven of the papers
#     SEEDS       default: "1 2 3"
#     CALIBRATED  not empty: base classes are tested, too, as training tests them without calibration
#
# Finished runs are not run again, so that what was cut goes on when it is called again. How many are finished and which
# are left is told in the beginning. A run that fails does not stop the others; those that failed are told in the end.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATASETS=${DATASETS:-imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 \
    fgvc_aircraft sun397 dtd eurosat ucf101}
SEEDS=${SEEDS:-1 2 3}
TRAINER=${TRAINER:-CDC}
[[ -d $ROOT/configs/trainers/$TRAINER ]] ||
    die "there is no folder $ROOT/configs/trainers/$TRAINER; there are $(listing "$ROOT"/configs/trainers/*/)"
unset LOADEP # every run is tested at the epoch that its training tested

steps=("SUB=new base2new_test.sh")
has_training && [[ -z ${CALIBRATED:-} ]] || steps=("SUB=base base2new_test.sh" "${steps[@]}")
! has_training || steps=("base2new_train.sh" "${steps[@]}")
read -ra datasets <<< "$DATASETS"
read -ra seeds <<< "$SEEDS"
total=$((${#datasets[@]} * ${#seeds[@]}))

# run_step STEP DATASET SEED [KEY VALUE ...]: become a step's script.
run_step() {
    local environment=() script=$1
    if [[ $script == *" "* ]]; then
        environment=("${script% *}") script=${script#* }
    fi
    shift
    exec env ${environment[@]+"${environment[@]}"} TRAINER="$TRAINER" \
        bash "$(dirname "${BASH_SOURCE[0]}")/$script" "$@"
}

finished=0
left=()
for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
        names=""
        for step in "${steps[@]}"; do
            if (export ASK=1 && run_step "$step" "$dataset" "$seed" "$@") > /dev/null 2>&1; then
                finished=$((finished + 1))
            else
                names+=", $step"
            fi
        done
        [[ -z $names ]] || left+=("$dataset seed $seed: ${names#, }")
    done
done
echo "$TRAINER: $finished of $((total * ${#steps[@]})) runs are finished"
[[ ${#left[@]} == 0 ]] || printf 'left: %s\n' "${left[@]}"

n=0
failed=()
for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
        n=$((n + 1))
        for step in "${steps[@]}"; do
            echo "[$n/$total] $TRAINER $dataset seed $seed: $step"
            if ! attended run_step "$step" "$dataset" "$seed" "$@"; then
                give_up_if_stopped
                failed+=("$dataset seed $seed: $step")
                break
            fi
        done
    done
done
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
