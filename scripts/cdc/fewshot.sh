#!/usr/bin/env bash
# Few-shot curve: train on all classes of a data set with 1, 2, 4, 8 and 16 images a class, each time from the start, and
# test on them:
#
#     bash scripts/cdc/fewshot.sh DATASET SEED [KEY VALUE ...]
#
# The runs are those of xd_train.sh, in OUTPUT/DATASET/<trainer>/<cfg>_<n>shots/seed<SEED>. Environment variables as there
# (DATA, OUTPUT, TRAINER, CFG, PYTHON, TAG), but
#
#     SHOTS     a list (default: "1 2 4 8 16")
#
# All numbers of images have the same CFG, so that they make one curve. CoOp was published with fewer epochs for fewer
# images: SHOTS=1 CFG=vit_b16_ep50, SHOTS="2 4" CFG=vit_b16_ep100.
set -euo pipefail
for shots in ${SHOTS:-1 2 4 8 16}; do
    SHOTS=$shots bash "$(dirname "${BASH_SOURCE[0]}")/xd_train.sh" "$@"
done
