#!/usr/bin/env bash
# Few-shot curve: train on all classes of a data set with 1, 2, 4, 8 and 16 images per class, each time from the start,
# and test on them:
#
#     bash scripts/cdc/fewshot.sh DATASET SEED [KEY VALUE ...]
#
# The runs lie in OUTPUT/DATASET/<trainer>/<cfg>_<n>shots/seed<SEED>. Environment variables as in common.sh (DATA,
# OUTPUT, TRAINER, CFG, PYTHON, TAG), but
#
#     SHOTS     a list (default: "1 2 4 8 16")
#
# All numbers of images have the same CFG. CoOp was published with fewer epochs for fewer images (except on ImageNet):
# SHOTS=1 CFG=vit_b16_ep50, SHOTS="2 4" CFG=vit_b16_ep100, and vit_b16, the default here, for 8 and 16.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2329 # `attended` calls it
few_shot_run() {
    local folder
    configure "$@"
    has_training || die "$TRAINER has nothing to train: run xd_test.sh"
    folder=$OUTPUT/$RUN
    skip_if_finished "$folder"
    launch "$folder" all
}

CLASSES=few SOURCE="" status=0
for shots in ${SHOTS:-1 2 4 8 16}; do
    SHOTS=$shots
    attended few_shot_run "$@" || status=$?
    give_up_if_stopped
done
exit "$status"
