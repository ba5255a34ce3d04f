# shellcheck shell=bash
# What the protocol scripts share. They source this file and are called from any directory as
#
#     bash scripts/cdc/base2new_train.sh DATASET SEED [KEY VALUE ...]
#
# DATASET names configs/datasets/DATASET.yaml; KEY VALUE pairs are passed on to the config (paths in them are seen from
# the checkout). Environment variables:
#
#     DATA      folder of the data sets (default: data in the checkout)
#     OUTPUT    folder of the runs (default: output in the checkout)
#     SHOTS     training images per class (default: 16; -1: all of them)
#     TRAINER   configs/trainers/TRAINER (default: CDC)
#     CFG       configs/trainers/TRAINER/CFG.yaml (default: tiny for the data sets in GENERATED below, else the one that
#               was published for the protocol, see default_config, or vit_b16)
#     PYTHON    default: .venv/bin/python in the checkout if it is there, else python
#     TAG       see below
#     TRAINED   in tests: <cfg> of the training that is tested, as its folder is called, where the test has other settings
#     CALIBRATED  not empty, in tests: also measure the predictions after the calibration of the run, which
#               python -m tools.calibrate has fitted
#     QUIET     not empty: show the metrics alone; log.txt has all the rest (not with the train.py of another checkout)
#     REPORT_TO  where figures go besides TensorBoard: wandb, or empty for nowhere (likewise)
#     ASK       not empty: run nothing; exit status 0 says that the run is finished
#
# A run lies where CoOp puts it: OUTPUT/base2new/<part>/<dataset>/shots_<n>/<trainer>/<cfg>/seed<k> where classes are
# halved, else OUTPUT/<dataset>/<trainer>/<cfg>_<n>shots/seed<k>. CoOp has no rule for runs with other settings than the
# config's; in one folder one would be taken for the other, finished or to be resumed. So KEY VALUE pairs are part of
# the folder's name, <cfg>+KEY=VALUE,..., and a test finds its training if both are given the same pairs. TAG=name makes
# <cfg>+name instead; then the caller must keep settings apart. An empty TAG leaves <cfg> alone, and allows only pairs
# of PLAIN below, which change no result. A test with other settings than its training has a folder of its own, and
# finds the training by TRAINED.
#
# A run is finished when its folder holds results.json, and is then not run again. An unfinished run is started again
# and resumes after its last checkpoint. A run that fails before it has written more than its log leaves no folder.

ROOT=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Written into DATA on first use, in sizes that suit the small CLIP
GENERATED="backgrounds confounded confounded_colours digits letters reliefs shapes shapesv2 shapes_sketch shapes_a shapes_r symbols textures turned"

# KEYs that change neither what is trained nor what is tested, as patterns
PLAIN="DATALOADER.NUM_WORKERS DATALOADER.TEST.BATCH_SIZE DATASET.IMAGES_OUTSIDE TEST.COMPUTE_CMAT
    TEST.PER_CLASS_RESULT TRAIN.CHECKPOINT_FREQ TRAIN.PRINT_FREQ TRAINER.*.FEATURE_BANK_DIR USE_CUDA VERBOSE"

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# absolute PATH: seen from the caller's directory; "~/" is resolved as it may come quoted.
absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        \~ | \~/*) printf '%s' "$HOME${1#\~}" ;;
        *) printf '%s' "$PWD/$1" ;;
    esac
}

# listing PATH...: the last parts of the paths that exist, without .yaml, in one line.
listing() {
    local path names=""
    for path in "$@"; do
        if [[ -e $path ]]; then
            path=${path%/}
            path=${path##*/}
            names+=", ${path%.yaml}"
        fi
    done
    names=${names#, }
    printf '%s' "${names:-none}"
}

# settings_suffix KEY VALUE...: the folder name's part for these settings, the same in whatever order they come.
settings_suffix() {
    local plain safe
    plain=$(printf '%s=%s\n' "$@" | LC_ALL=C sort | paste -sd , -)
    safe=$(printf '%s' "$plain" | LC_ALL=C tr -c 'A-Za-z0-9._=,-' '_')
    if [[ $safe != "$plain" || ${#safe} -gt 120 ]]; then
        safe=${safe:0:100}~$(printf '%s' "$plain" | cksum | cut -d ' ' -f 1) # tells apart what now looks the same
    fi
    printf '+%s' "$safe"
}

# telling_keys: those of SETTINGS that are not in PLAIN, as ", KEY, KEY".
telling_keys() {
    local n pattern known plain
    read -d '' -ra known <<< "$PLAIN" || true
    for ((n = 0; n < ${#SETTINGS[@]}; n += 2)); do
        plain=""
        for pattern in "${known[@]}"; do
            # shellcheck disable=SC2053 # it is a pattern
            [[ ${SETTINGS[n]} != $pattern ]] || plain=1
        done
        [[ -n $plain ]] || printf ', %s' "${SETTINGS[n]}"
    done
}

# find_python: set PYTHON, where it is not given to that of the checkout, else to the first on the path.
find_python() {
    local own=$ROOT/.venv/bin/python
    if [[ -n ${PYTHON:-} ]]; then
        case $PYTHON in
            */*) PYTHON=$(absolute "$PYTHON") ;;
        esac
        command -v "$PYTHON" > /dev/null ||
            die "there is no program $PYTHON: set PYTHON to a Python, or leave it out" \
                "(then it is $(if [[ -x $own ]]; then echo "$own"; else echo python; fi))"
    else
        PYTHON=python
        [[ ! -x $own ]] || PYTHON=$own
        command -v "$PYTHON" > /dev/null ||
            die "there is no program python, and $own is not there either: set PYTHON to the one to use"
    fi
}

# check_folder NAME PATH [to_write]: stop unless a variable's PATH is a folder, or can become one.
check_folder() {
    local there=$2
    while [[ -n $there && ! -e $there ]]; do
        there=${there%/*}
    done
    there=${there:-/}
    [[ -d $there ]] || die "$1 must be a folder, got $2, but $there is a file"
    [[ -z ${3-} || (-w $there && -x $there) ]] ||
        die "$1 must be a folder that can be written, got $2, but there is no right to write into $there"
}

# has_training: whether TRAINER is one that is trained before it is tested, by its name.
has_training() {
    [[ $TRAINER != Zeroshot* ]]
}

# generated DATASET: whether it is one that this project writes itself.
generated() {
    [[ " $GENERATED " == *" $1 "* ]]
}

# default_config DATASET: the config for a training on DATASET.
default_config() {
    if generated "$1"; then
        echo tiny
        return
    fi
    # shellcheck disable=SC2153 # the scripts set CLASSES
    case $TRAINER:$1:$CLASSES in
        CDC:*:all) echo vit_b16_cross_datasets ;; # MaPLe's settings for these protocols
        CoOp:imagenet:few) echo vit_b16_ep50 ;;
        CoOp:*:few) echo vit_b16 ;;
        CoOp:imagenet:*) echo vit_b16_ep50_ctxv1 ;;
        CoOp:*) echo vit_b16_ctxv1 ;;
        CoCoOp:*) echo vit_b16_c4_ep10_batch1_ctxv1 ;;
        KgCoOp:*) echo vit_b16_ep100_ctxv1 ;;
        TCP:imagenet:* | TCP:sun397:*) echo vit_b16_ep25_ctxv1 ;;
        TCP:*) echo vit_b16_ep100_ctxv1 ;;
        MaPLe:*:all) echo vit_b16_c2_ep5_batch4_2ctx_cross_datasets ;;
        MaPLe:*) echo vit_b16_c2_ep5_batch4_2ctx ;; # for few-shot curves our choice: none were published
        PromptSRC:*:all) echo vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets ;;
        PromptSRC:*:few) echo vit_b16_c2_ep50_batch4_4+4ctx_few_shot ;;
        PromptSRC:*) echo vit_b16_c2_ep20_batch4_4+4ctx ;;
        MMRL:*:all) echo vit_b16_cross_datasets ;;
        MMRL:imagenet:*) echo vit_b16_imagenet ;;
        MMRL:*:few) echo vit_b16_few_shot ;;
        *) echo vit_b16 ;;
    esac
}

# configure DATASET SEED [KEY VALUE ...]: check all that the caller gave, and set DATASET, SEED, SETTINGS (the pairs),
# the variables above with absolute paths, GIVEN (those the caller set, as a command's beginning), and RUN. A script
# says before whether the trained classes are a half of DATASET's (CLASSES=half), or all of them for tests on other data
# sets (CLASSES=all) or for a few-shot curve (CLASSES=few); and it may name the data set trained on in SOURCE.
configure() {
    local key keys=" " suffix="" trained_on name
    GIVEN="" CALIBRATION=""
    for name in DATA OUTPUT SHOTS TRAINER CFG PYTHON TAG; do # not TRAINED: for find_model's command
        [[ -z ${!name+set} ]] || GIVEN+="$name=$(printf %q "${!name}") "
    done
    if [[ $# -lt 2 ]]; then
        die "call it as ${0##*/} DATASET SEED [KEY VALUE ...], where DATASET is one of" \
            "$(listing "$ROOT"/configs/datasets/*.yaml)"
    fi
    DATASET=$1 SEED=$2
    shift 2
    SETTINGS=("$@")

    [[ -f $ROOT/configs/datasets/$DATASET.yaml ]] ||
        die "there is no data set config $ROOT/configs/datasets/$DATASET.yaml; there are" \
            "$(listing "$ROOT"/configs/datasets/*.yaml)"
    [[ $SEED =~ ^(0|[1-9][0-9]*)$ ]] || die "SEED must be a whole number from 0 on, got '$SEED'"
    [[ $(($# % 2)) == 0 ]] || die "settings must come as pairs of KEY VALUE, but the last of '$*' has no partner"
    while [[ $# -gt 0 ]]; do
        key=$1
        shift 2
        [[ $key =~ ^[A-Za-z0-9_.]+$ ]] || die "'$key' is not a config KEY, as OPTIM.MAX_EPOCH is"
        [[ $keys != *" $key "* ]] || die "$key is given twice"
        keys+="$key "
        case $key in
            DATASET.ROOT) die "set DATA=... in place of $key" ;;
            DATASET.NAME) die "give the data set as first argument in place of $key" ;;
            DATASET.NUM_SHOTS) die "set SHOTS=... in place of $key" ;;
            DATASET.SUBSAMPLE_CLASSES) die "$key is what the protocol says (in a test: SUB=...)" ;;
            TEST.CALIBRATION) die "set CALIBRATED=1 in place of $key" ;;
            OUTPUT_DIR) die "set OUTPUT=... in place of $key" ;;
            REPORT_TO) die "set REPORT_TO=... in place of $key" ;; # not a part of the folder's name
            SEED) die "give the seed as second argument in place of $key" ;;
            TRAINER.NAME) die "set TRAINER=... in place of $key" ;;
        esac
    done

    SHOTS=${SHOTS:-16}
    [[ $SHOTS =~ ^([1-9][0-9]*|-1)$ ]] || die "SHOTS must be a whole number from 1 on, or -1 for all, got '$SHOTS'"

    TRAINER=${TRAINER:-CDC}
    [[ -d $ROOT/configs/trainers/$TRAINER ]] ||
        die "there is no folder $ROOT/configs/trainers/$TRAINER; there are $(listing "$ROOT"/configs/trainers/*/)"
    trained_on=${SOURCE:-$DATASET}
    if [[ -z ${CFG:-} ]]; then
        CFG=$(default_config "$trained_on")
        echo "CFG is not given: taking configs/trainers/$TRAINER/$CFG.yaml, the default for $trained_on"
    fi
    [[ $CFG != */* ]] || die "CFG must be the name of a config in configs/trainers/$TRAINER without folders, got '$CFG'"
    RUN_CFG=$CFG
    if [[ $TRAINER/$CFG =~ ^CDC/(vit_b16|tiny)_coupled$ && ! -f $ROOT/configs/trainers/CDC/$CFG.yaml ]]; then
        echo "configs/trainers/CDC/$CFG.yaml is now ${CFG%_coupled}.yaml: coupled templates are the default"
        CFG=${CFG%_coupled} # but runs stay in the folder of the old name
    fi
    [[ -f $ROOT/configs/trainers/$TRAINER/$CFG.yaml ]] ||
        die "there is no trainer config $ROOT/configs/trainers/$TRAINER/$CFG.yaml; there are" \
            "$(listing "$ROOT/configs/trainers/$TRAINER"/*.yaml)"

    find_python
    DATA=$(absolute "${DATA:-$ROOT/data}")
    check_folder DATA "$DATA"
    [[ -d $DATA ]] || generated "$DATASET" ||
        die "there is no data folder $DATA: set DATA to the folder that holds the data sets"
    OUTPUT=$(absolute "${OUTPUT:-$ROOT/output}")
    check_folder OUTPUT "$OUTPUT" to_write

    if [[ -n ${TAG-} ]]; then
        [[ $TAG =~ ^[A-Za-z0-9._=,+-]+$ ]] || die "TAG must consist of letters, digits and . _ = , + -, got '$TAG'"
        suffix=+$TAG
    elif [[ -n ${TAG+set} ]]; then
        keys=$(telling_keys)
        [[ -z $keys ]] ||
            die "TAG= would put a run with ${keys#, } into the folder of $CFG alone, and one be taken for the other: leave" \
                "TAG out or give it a name (a test then finds its training by TRAINED=<folder of its config>)"
    elif [[ ${#SETTINGS[@]} -gt 0 ]]; then
        suffix=$(settings_suffix "${SETTINGS[@]}")
    fi
    RUN_CFG+=$suffix
    [[ ${TRAINED-x} =~ ^[A-Za-z0-9._=,~+-]+$ ]] ||
        die "TRAINED must be the name of a training's folder, as $CFG or $CFG+name, got '$TRAINED'"
    place_run
}

# trained_run: RUN of the training that is tested: that of the test, unless TRAINED names another one.
trained_run() {
    local RUN_CFG=${TRAINED:-$RUN_CFG} RUN EVALUATION
    place_run
    printf %s "$RUN"
}

# place_run [SUFFIX]: set RUN, the run's folder below OUTPUT/base2new/<part> where the classes are halved, else below
# OUTPUT; and EVALUATION, that of its test on another data set, which a script may mark by FROM.
# shellcheck disable=SC2034 # the scripts use them
place_run() {
    case $CLASSES in
        half) RUN=$DATASET/shots_$SHOTS/$TRAINER/$RUN_CFG${1-}/seed$SEED ;;
        *) RUN=${SOURCE:-$DATASET}/$TRAINER/$RUN_CFG${1-}_${SHOTS}shots/seed$SEED ;;
    esac
    EVALUATION=evaluation/$TRAINER/$RUN_CFG${1-}${FROM-}_${SHOTS}shots/$DATASET/seed$SEED
}

# epochs FOLDER: the epochs of the checkpoints in a run's folder, in order, one per line.
epochs() {
    local path
    for path in "$1"/*/model.pth.tar-*; do
        [[ ! -f $path ]] || echo "${path##*-}"
    done | sort -n
}

# sources: the data sets on all of whose classes TRAINER was trained, in one line.
sources() {
    local path paths=()
    for path in "$OUTPUT"/*/"$TRAINER"/; do
        path=${path%/"$TRAINER"/}
        [[ $path == */evaluation ]] || paths+=("$path")
    done
    listing ${paths[@]+"${paths[@]}"}
}

# find_model FOLDER SCRIPT: set MODEL_FILE and LOADEP, by default those of the model that a finished training in FOLDER
# by SCRIPT has tested: the best one in validation, for which LOADEP stays empty, if it kept one, else the last. Another
# LOADEP gives the test a folder of its own.
find_model() {
    local saved last best trained="" train
    train="${GIVEN}bash ${BASH_SOURCE[0]%/*}/$2 ${SOURCE:-$DATASET} $SEED"
    [[ -n ${TRAINED-} ]] || train+=" ${SETTINGS[*]-}"
    if [[ $CLASSES == all ]]; then
        trained="; SOURCE names the data set trained on, here $SOURCE, of those that $TRAINER was trained on: $(sources)"
    else
        trained=", data sets trained at all $(listing "${1%/"$(trained_run)"}"/*)"
    fi
    saved=$(epochs "$1")
    last=${saved##*$'\n'}
    [[ -n $saved ]] ||
        die "there is no trained model in $1: run \`${train% }\` first; seeds trained with these settings are" \
            "$(listing "${1%/*}"/seed*)$trained"
    if [[ -z ${LOADEP:-} ]]; then
        [[ -f $1/results.json ]] ||
            die "the training in $1 is not finished (it is at epoch $last, without results.json):" \
                "run \`${train% }\` again, or set LOADEP to test one of the epochs ${saved//$'\n'/, }"
        for MODEL_FILE in "$1"/*/model-best.pth.tar; do
            [[ ! -f $MODEL_FILE ]] || return 0
        done
        LOADEP=$last
    fi
    for MODEL_FILE in "$1"/*/"model.pth.tar-$LOADEP"; do
        [[ -f $MODEL_FILE ]] || die "there is no epoch LOADEP=$LOADEP in $1; there are the epochs ${saved//$'\n'/, }"
    done
    best=("$1"/*/model-best.pth.tar)
    [[ $LOADEP == "$last" && ! -f ${best[0]} ]] || place_run "+epoch$LOADEP"
}

# find_calibration FOLDER: where CALIBRATED asks for it, set CALIBRATION to the file in the folder of the run that is
# tested, or that was tested on base classes where nothing is trained.
find_calibration() {
    [[ -n ${CALIBRATED:-} ]] || return 0
    CALIBRATION=$1/calibration.json
    [[ -f $CALIBRATION ]] || die "there is no calibration $CALIBRATION: run \`python -m tools.calibrate $1\` first"
}

# has_calibrated FOLDER: whether the results there have what CALIBRATION asks for.
has_calibrated() {
    [[ -n $CALIBRATION ]] || return 0
    [[ ! $CALIBRATION -nt $1/results.json ]] && grep -q '"ece_calibrated"' "$1/results.json"
}

# skip_if_finished FOLDER [FILE]: end the script if the run is finished; FILE is what it was made from, and if that is
# newer than the results, they are out of date.
skip_if_finished() {
    # What is CDC's vit_b16_text and tiny_text now was once called vit_b16 and tiny.
    if [[ -f $1/results.json && $TRAINER/$CFG =~ ^CDC/(vit_b16|tiny)$ && ${SETTINGS[*]-} != *TRAINER.CDC.PROMPT* ]] &&
        grep -q '"PROMPT": "text"' "$1/results.json"; then
        die "the run in $1 is one of text-only templates, of an earlier version: move it to the same place under" \
            "${CFG}_text, or set OUTPUT to another folder"
    fi
    if [[ -f $1/results.json && ! ${2:-/dev/null} -nt $1/results.json ]] && has_calibrated "$1"; then
        echo "Finished already, not run again: $1/results.json (remove this folder to run it again)"
        exit 0
    fi
    [[ -z ${ASK:-} ]] || exit 1
}

# attended COMMAND [ARGUMENT ...]: run a program or function. A signal that ends this script (Ctrl-C, TERM, HUP) ends
# that, too: it is passed on, the command's end is waited for, and then STOPPED is the exit status to end with.
attended() {
    local child status
    { : <&0; } 2> /dev/null || exec < /dev/null
    (
        trap - INT TERM HUP # Ctrl-C is ignored in what runs in the background, unless it is asked for
        [[ $(type -t "$1") != file ]] || exec "$@"
        "$@"
    ) <&0 &
    child=$!
    # A terminal sends Ctrl-C to the command itself, and a second one would not let it finish its step.
    trap 'STOPPED=130; kill -TERM "$child" 2> /dev/null || true' INT
    trap 'STOPPED=143; kill -TERM "$child" 2> /dev/null || true' TERM
    trap 'STOPPED=129; kill -TERM "$child" 2> /dev/null || true' HUP
    while :; do
        status=0
        wait "$child" 2> /dev/null || status=$?
        if [[ $status -le 128 ]] || ! kill -0 "$child" 2> /dev/null; then # and no signal has ended the waiting
            break
        fi
    done
    if [[ -n ${STOPPED:-} ]]; then
        trap '' INT TERM HUP # the script that has called this one passes the signal on, too, while this one clears up
    else
        trap - INT TERM HUP
    fi
    return "${STOPPED:-$status}"
}

# give_up_if_stopped: end the script if a signal has come for it.
give_up_if_stopped() {
    [[ -z ${STOPPED:-} ]] || exit "$STOPPED"
}

# launch FOLDER CLASSES [ARGUMENT ...]: run train.py, with its output in FOLDER and these further arguments.
launch() {
    local folder=$1 classes=$2 above=$1 status=0
    shift 2
    # Published train.py files take seed 0 for none (`if args.seed`), but not as a setting.
    [[ $SEED != 0 ]] || SETTINGS+=(SEED 0)
    while [[ -n $above && ! -e $above ]]; do
        above=${above%/*}
    done

    # Threads that spin while they wait slow each other down where several runs share the cores.
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
    cd "$ROOT" || exit
    attended "$PYTHON" train.py \
        --root "$DATA" \
        --seed "$SEED" \
        --trainer "$TRAINER" \
        --dataset-config-file "configs/datasets/$DATASET.yaml" \
        --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
        --output-dir "$folder" \
        ${QUIET:+--quiet} \
        ${REPORT_TO:+--report-to "$REPORT_TO"} \
        "$@" \
        DATASET.NUM_SHOTS "$SHOTS" \
        DATASET.SUBSAMPLE_CLASSES "$classes" \
        ${CALIBRATION:+TEST.CALIBRATION "$CALIBRATION"} \
        ${SETTINGS[@]+"${SETTINGS[@]}"} || status=$?

    # What train.py itself could not take back. This looks whether another process runs in the folder by now.
    if [[ $status != 0 && $above != "$folder" && -d $folder ]] &&
        "$PYTHON" storage/ownership.py "$folder" 2> /dev/null; then
        while [[ $folder != "$above" ]] && rmdir "$folder" 2> /dev/null; do # not what another run has put something in
            folder=${folder%/*}
        done
    fi
    give_up_if_stopped
    return "$status"
}
