# shellcheck shell=bash
# What the protocol scripts take their runs' folders from, asked once for a whole plan:
#
#     bash ask_scripts.sh CHECKOUT CLASSES SEED "TRAINER ..." "DATASET ..." [KEY VALUE ...]
#
# CLASSES is that of scripts/cdc/common.sh. DATASETs are those that are trained on. The environment variables of the
# scripts hold. Prints a line each, in parts that are separated by tabs: data and output folder; Python; the part of a folder's
# name that KEY VALUE pairs or TAG are; images per class; the generated sets; and the config of each trainer on each set.
# Errors in what was given are reported as the scripts report them.
set -euo pipefail
checkout=$1 CLASSES=$2 seed=$3
read -ra trainers <<< "$4"
read -ra datasets <<< "$5"
shift 5
# shellcheck source=../../scripts/cdc/common.sh disable=SC1091
source "$checkout/scripts/cdc/common.sh"

given=${CFG:-} SOURCE=""
probe=${datasets[0]} # a generated one needs no data folder, and of a plan's data sets none may need one
for dataset in "${datasets[@]}"; do
    if generated "$dataset"; then
        probe=$dataset
        break
    fi
done
TRAINER=${trainers[0]}
[[ -d $ROOT/configs/trainers/$TRAINER ]] ||
    die "there is no folder $ROOT/configs/trainers/$TRAINER; there are $(listing "$ROOT"/configs/trainers/*/)"
CFG=${given:-$(default_config "$probe")}
name=$CFG
configure "$probe" "$seed" "$@" > /dev/null

printf 'data\t%s\noutput\t%s\npython\t%s\nsuffix\t%s\nshots\t%s\ngenerated\t%s\n' \
    "$DATA" "$OUTPUT" "$PYTHON" "${RUN_CFG#"$name"}" "$SHOTS" "$GENERATED"
for TRAINER in "${trainers[@]}"; do
    for dataset in "${datasets[@]}"; do
        printf 'config\t%s\t%s\t' "$TRAINER" "$dataset"
        if [[ -n $given ]]; then
            printf '%s\n' "$given"
        else
            default_config "$dataset"
        fi
    done
done
