"""The sections of the study in the order in which they are run, and what each is."""

SECTIONS = {
    "base2new": "base-to-new of all methods",
    "seeds": "base-to-new of CDC and MaPLe, and parts of CDC, with more seeds",
    "confounded": "all methods, and parts of CDC, where the background follows the class",
    "ablation": "parts of CDC, number of templates, weight of loss (2)",
    "cost": "CDC against one template, MaPLe, and four templates trained alone, at about the same cost",
    "harder": "base-to-new of all methods, and parts of CDC, on harder sets",
    "regimes": "losses (2) and (3) from other starts, on other views, on harder sets and a confounder",
    "curves": "accuracy over the epochs of a longer training",
    "transfer": "training on all classes of one set, tests on the others and on its variants",
    "calibration": "tests of base2new after calibration, with open sets, and of transfer on the variants",
}
