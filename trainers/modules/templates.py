"""Hand-written prompt templates, one a data set, by the data set's registered name.

Those of the public sets are the ones that CLIP's authors, and after them CoOp, evaluate with; the others are ours.
"""

from __future__ import annotations

DEFAULT_TEMPLATE = "a photo of a {}."

TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
    "Digits": "a photo of the digit {}.",
    "Textures": "{} texture.",
    "Letters": "a photo of the letter {}.",
    "Symbols": "a photo of the symbol {}.",
    "Backgrounds": "a photo of a {} background.",
}

# Seven of CLIP's templates for ImageNet, which its authors selected for working best together.
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def format_template(class_names: list[str], dataset: str, template: str = "") -> list[str]:
    """One text a class, underscores of class names as blanks.

    Args:
        class_names: C class names.
        dataset: the data set's registered name, whose own template is taken where `template` is empty; a set that has
            none gets `DEFAULT_TEMPLATE`.
        template: a text with one `{}`.

    Raises:
        ValueError: `template` has not exactly one `{}`.
    """
    template = template or TEMPLATES.get(dataset, DEFAULT_TEMPLATE)
    if template.count("{}") != 1:
        raise ValueError(f"a template must hold {{}} once, for the class name, got {template!r}")
    return [template.replace("{}", name.replace("_", " ")) for name in class_names]
