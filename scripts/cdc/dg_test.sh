#!/usr/bin/env bash
# Domain generalisation: test what xd_train.sh has trained on a data set on all its variants, one after the other:
#
#     bash scripts/cdc/dg_test.sh imagenet SEED [KEY VALUE ...]
#
# The runs are those of xd_test.sh, which tests one data set, and so are the environment variables but SOURCE, which is the
# first argument here.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1-} in
    imagenet) variants="imagenetv2 imagenet_sketch imagenet_a imagenet_r" ;;
    shapes) variants="shapesv2 shapes_sketch shapes_a shapes_r" ;;
    *) die "call it as ${0##*/} DATASET SEED [KEY VALUE ...]; of DATASET, imagenet or shapes, there are variants" ;;
esac
source_set=$1 status=0
shift
for variant in $variants; do
    SOURCE=$source_set bash "$(dirname "${BASH_SOURCE[0]}")/xd_test.sh" "$variant" "$@" || status=$?
done
exit "$status"
