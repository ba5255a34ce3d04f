"""Every configuration key of Dassl with its default value.

yacs refuses a key that is not here and a value of another type (a list may stand for a tuple, and the reverse). So
that any YAML file of the CoOp family merges, the names, values and types are those of Dassl, including the sections
of trainers that this package does not have. `()` is an empty list, to be filled by such a file.
"""

from __future__ import annotations

from typing import Any

# Options of one training loader, labelled or unlabelled.
_TRAIN_LOADER: dict[str, Any] = {
    "SAMPLER": "RandomSampler",
    "BATCH_SIZE": 32,
    "N_DOMAIN": 0,  # RandomDomainSampler: domains in a batch; 0 or less = all
    "N_INS": 16,  # RandomClassSampler: images of one class in a batch
}

# Pseudo-labels (FixMatch, DAEL): their lowest confidence, and the transforms of the view that learns from them.
_PSEUDO_LABELS: dict[str, Any] = {"CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()}

DEFAULTS: dict[str, Any] = {
    "VERSION": 1,
    "OUTPUT_DIR": "./output",
    "RESUME": "",  # folder of an earlier run to go on from
    "SEED": -1,  # negative = not seeded
    "USE_CUDA": True,
    "VERBOSE": True,
    "INPUT": {
        "SIZE": (224, 224),  # height, width
        "INTERPOLATION": "bilinear",  # bilinear, bicubic or nearest
        "TRANSFORMS": (),  # names of dassl.data.transforms.transforms.AVAI_CHOICES
        "NO_TRANSFORM": False,
        "PIXEL_MEAN": [0.485, 0.456, 0.406],  # ImageNet's
        "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4,  # random_crop
        "RRCROP_SCALE": (0.08, 1.0),  # random_resized_crop: smallest and largest share of the area
        "CUTOUT_N": 1,  # holes
        "CUTOUT_LEN": 16,  # side of a hole, pixels
        "GN_MEAN": 0.0,  # gaussian_noise
        "GN_STD": 0.15,
        "RANDAUGMENT_N": 2,  # operations on an image
        "RANDAUGMENT_M": 10,  # their strength, 0 to 30
        "COLORJITTER_B": 0.4,  # brightness
        "COLORJITTER_C": 0.4,  # contrast
        "COLORJITTER_S": 0.4,  # saturation
        "COLORJITTER_H": 0.1,  # hue
        "RGS_P": 0.2,  # probability of randomgrayscale
        "GB_P": 0.5,  # probability of gaussian_blur
        "GB_K": 21,  # its kernel's side, odd
    },
    "DATASET": {
        "ROOT": "",  # folder that holds the folders of all data sets
        "NAME": "",
        "SOURCE_DOMAINS": (),
        "TARGET_DOMAINS": (),
        "NUM_LABELED": -1,  # labelled images in total (semi-supervised sets)
        "NUM_SHOTS": -1,  # images per class; less than 1 = all
        "VAL_PERCENT": 0.1,  # share of the training images held out (semi-supervised sets)
        "STL10_FOLD": -1,
        "CIFAR_C_TYPE": "",
        "CIFAR_C_LEVEL": 1,
        "ALL_AS_UNLABELED": False,
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,
        "K_TRANSFORMS": 1,  # views of one training image by the same transform
        "RETURN_IMG0": False,  # give the image without augmentation too, as `img0`
        "TRAIN_X": _TRAIN_LOADER,
        "TRAIN_U": {"SAME_AS_X": True, **_TRAIN_LOADER},
        "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
    },
    "MODEL": {
        "INIT_WEIGHTS": "",  # file to start from
        "BACKBONE": {"NAME": "", "PRETRAINED": True},
        "HEAD": {"NAME": "", "HIDDEN_LAYERS": (), "ACTIVATION": "relu", "BN": True, "DROPOUT": 0.0},
    },
    "OPTIM": {
        "NAME": "adam",
        "LR": 0.0003,
        "WEIGHT_DECAY": 5e-4,
        "MOMENTUM": 0.9,
        "SGD_DAMPNING": 0,  # spelt like this in every published file
        "SGD_NESTEROV": False,
        "RMSPROP_ALPHA": 0.99,
        "ADAM_BETA1": 0.9,
        "ADAM_BETA2": 0.999,
        "STAGED_LR": False,  # layers not in NEW_LAYERS learn at LR * BASE_LR_MULT
        "NEW_LAYERS": (),
        "BASE_LR_MULT": 0.1,
        "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,),  # epochs; less than 1 = MAX_EPOCH
        "GAMMA": 0.1,
        "MAX_EPOCH": 10,
        "WARMUP_EPOCH": -1,  # less than 1 = none
        "WARMUP_TYPE": "linear",  # or constant
        "WARMUP_CONS_LR": 1e-5,  # learning rate of the constant kind
        "WARMUP_MIN_LR": 1e-5,  # lowest learning rate of the linear kind
        "WARMUP_RECOUNT": True,  # the scheduler after the warm-up counts its epochs from there
    },
    "TRAIN": {
        "CHECKPOINT_FREQ": 0,  # epochs between checkpoints; less than 1 = at the end alone
        "PRINT_FREQ": 10,  # batches between printed lines
        "COUNT_ITER": "train_x",  # whose batches make an epoch: train_x, train_u or smaller_one
    },
    "TEST": {
        "EVALUATOR": "Classification",
        "PER_CLASS_RESULT": False,
        "COMPUTE_CMAT": False,  # save the confusion matrix in OUTPUT_DIR
        "NO_TEST": False,
        "SPLIT": "test",  # or val
        "FINAL_MODEL": "last_step",  # or best_val
    },
    "TRAINER": {
        "NAME": "",
        # Domain adaptation
        "MCD": {"N_STEP_F": 4},
        "MME": {"LMDA": 0.1},
        "CDAC": {
            "CLASS_LR_MULTI": 10,
            "RAMPUP_COEF": 30,
            "RAMPUP_ITRS": 1000,
            "TOPK_MATCH": 5,
            "P_THRESH": 0.95,
            "STRONG_TRANSFORMS": (),
        },
        "SE": {"EMA_ALPHA": 0.999, "CONF_THRE": 0.95, "RAMPUP": 300},
        "M3SDA": {"LMDA": 0.5, "N_STEP_F": 4},
        "DAEL": {"WEIGHT_U": 0.5, **_PSEUDO_LABELS},
        # Domain generalisation
        "CROSSGRAD": {"EPS_F": 1.0, "EPS_D": 1.0, "ALPHA_F": 0.5, "ALPHA_D": 0.5},
        "DDAIG": {
            "G_ARCH": "",
            "LMDA": 0.3,
            "CLAMP": False,
            "CLAMP_MIN": -1.0,
            "CLAMP_MAX": 1.0,
            "WARMUP": 0,
            "ALPHA": 0.5,
        },
        "DAELDG": {"WEIGHT_U": 0.5, **_PSEUDO_LABELS},
        "DOMAINMIX": {"TYPE": "crossdomain", "ALPHA": 1.0, "BETA": 1.0},
        # Semi-supervised learning
        "ENTMIN": {"LMDA": 1e-3},
        "MEANTEACHER": {"WEIGHT_U": 1.0, "EMA_ALPHA": 0.999, "RAMPUP": 5},
        "MIXMATCH": {"WEIGHT_U": 100.0, "TEMP": 2.0, "MIXUP_BETA": 0.75, "RAMPUP": 20000},
        "FIXMATCH": {"WEIGHT_U": 1.0, **_PSEUDO_LABELS},
    },
}
