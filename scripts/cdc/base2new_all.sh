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
# This is `python -m tools.sweep base2new` for one trainer, and told there: finished runs are not run again, a run that
# fails does not stop the others, and with Ray they go side by side. In a checkout without tools/sweep the two scripts
# are called one after the other.
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
read -ra datasets <<< "$DATASETS"
read -ra seeds <<< "$SEEDS"

if [[ -f $ROOT/tools/sweep/__main__.py ]]; then
    find_python
    export PYTHON DATA OUTPUT PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
    DATA=$(absolute "${DATA:-$ROOT/data}") OUTPUT=$(absolute "${OUTPUT:-$ROOT/output}")
    cd "$ROOT"
    exec "$PYTHON" -m tools.sweep base2new --trainers "$TRAINER" --datasets "${datasets[@]}" --seeds "${seeds[@]}" -- "$@"
fi

steps=("SUB=new base2new_test.sh")
has_training && [[ -z ${CALIBRATED:-} ]] || steps=("SUB=base base2new_test.sh" "${steps[@]}")
! has_training || steps=("SUB=new base2new_train.sh" "${steps[@]}")

# run_step STEP DATASET SEED [KEY VALUE ...]: become a step's script.
# shellcheck disable=SC2329 # `attended` calls it
run_step() {
    local variable=${1% *} script=${1#* }
    shift
    exec env "$variable" TRAINER="$TRAINER" bash "$(dirname "${BASH_SOURCE[0]}")/$script" "$@"
}

failed=()
for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
        for step in "${steps[@]}"; do
            echo "$TRAINER $dataset seed $seed: $step"
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
