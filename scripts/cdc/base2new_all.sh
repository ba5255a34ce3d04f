#!/usr/bin/env bash
# Base to new on many data sets and seeds: for each, base2new_train.sh and base2new_test.sh.
#
#     bash scripts/cdc/base2new_all.sh [KEY VALUE ...]
#
# Environment variables, besides those of these scripts:
#
#     DATASETS    default: the eleven of the papers
#     SEEDS       default: "1 2 3"
#     CALIBRATED  not empty: base classes have a test of their own, as the test of the training has no calibration
#
# This is `python -m tools.sweep base2new` for one trainer: with Ray runs go side by side. In a checkout without
# tools/sweep this script calls the others one after the other. It checks all calls before anything is run, prints which
# runs are left, leaves finished ones out, and in the end lists those that failed, each reason once.
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
    DATA=$(absolute "${DATA:-$ROOT/data}") OUTPUT=$(absolute "${OUTPUT:-$ROOT/output}")
    export PYTHON DATA OUTPUT
    cd "$ROOT"
    exec "$PYTHON" -m tools.sweep base2new --trainers "$TRAINER" --datasets "${datasets[@]}" --seeds "${seeds[@]}" -- "$@"
fi

steps=("SUB=new base2new_test.sh")
if ! has_training || [[ -n ${CALIBRATED:-} ]]; then
    steps=("SUB=base base2new_test.sh" "${steps[@]}")
fi
if has_training; then
    steps=("base2new_train.sh" "${steps[@]}")
fi
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
problems=()
for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
        names=""
        for step in "${steps[@]}"; do
            if told=$(export ASK=1 && run_step "$step" "$dataset" "$seed" "$@" 2>&1 > /dev/null); then
                finished=$((finished + 1))
            else
                names+=", $step"
                # Later steps need what the first one leaves.
                [[ $step != "${steps[0]}" || -z $told || " ${problems[*]-} " == *" $told "* ]] || problems+=("$told")
            fi
        done
        [[ -z $names ]] || left+=("$dataset seed $seed: ${names#, }")
    done
done
if [[ ${#problems[@]} -gt 0 ]]; then
    printf '%s\n' "${problems[@]}" >&2
    exit 1
fi
echo "$TRAINER: $finished of $((total * ${#steps[@]})) runs are finished"
[[ ${#left[@]} == 0 ]] || printf 'left: %s\n' "${left[@]}"

scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
mkfifo "$scratch/pipe"

# run_heard STEP DATASET SEED [KEY VALUE ...]: call a step's script; what it says on stderr is in $scratch/said, too.
run_heard() {
    local listener status=0
    tee -i "$scratch/said" < "$scratch/pipe" >&2 &
    listener=$!
    attended run_step "$@" 2> "$scratch/pipe" || status=$?
    wait "$listener" || true
    return "$status"
}

n=0
reasons=()
failed=() # by reason
for seed in "${seeds[@]}"; do
    for dataset in "${datasets[@]}"; do
        n=$((n + 1))
        for step in "${steps[@]}"; do
            echo "[$n/$total] $TRAINER $dataset seed $seed: $step"
            if ! run_heard "$step" "$dataset" "$seed" "$@"; then
                give_up_if_stopped
                reason=$(tail -n 1 "$scratch/said")
                for ((i = 0; i < ${#reasons[@]}; i++)); do
                    [[ ${reasons[i]} != "$reason" ]] || break
                done
                reasons[i]=$reason
                failed[i]=${failed[i]-}${failed[i]+, }"$dataset seed $seed: $step"
                break
            fi
        done
    done
done
for ((i = 0; i < ${#reasons[@]}; i++)); do
    printf 'failed: %s: %s\n' "${failed[i]}" "${reasons[i]:-(it said nothing)}" >&2
done
[[ ${#reasons[@]} == 0 ]]
