#!/usr/bin/env bash
# Domain generalisation: test what xd_train.sh has trained on a data set on all its variants, one after the other:
#
#     bash scripts/cdc/dg_test.sh imagenet SEED [KEY VALUE ...]
#
# The runs and the environment variables are those of xd_test.sh, which tests one data set.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1-} in
    imagenet) variants="imagenetv2 imagenet_sketch imagenet_a imagenet_r" ;;
    shapes) variants="shapes_v2 shapes_sketch shapes_a shapes_r" ;;
    *) die "call it as ${0##*/} DATASET SEED [KEY VALUE ...], where DATASET is imagenet or shapes, whose variants there are" ;;
esac
SOURCE=$1
shift
for variant in $variants; do
    SOURCE=$SOURCE bash "${BASH_SOURCE[0]%/*}/xd_test.sh" "$variant" "$@"
done
