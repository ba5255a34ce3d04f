"""Hand-written prompt templates: one per data set, by the data set's registered name, and lists for all of them.

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
    "Reliefs": "{} texture.",
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

# Sixty of CLIP's eighty templates for ImageNet, those that PromptSRC averages over, in its order.
PROMPTSRC_TEMPLATES = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
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
