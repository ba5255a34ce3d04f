"""What this project needs; it installs nothing of its own.

As with CoOp, the checkout is where this runs (`python train.py`, `bash scripts/...`, `python -m tools...`): its folders
are called `datasets`, `tools` and `tests`, which in site-packages would shadow other people's packages of these names
(Hugging Face's `datasets` for one). So `pip install -e .` brings the dependencies below and no module.
"""

from setuptools import setup

setup(
    name="cdc-dassl",
    version="0.1.0",
    description="Causality-guided semantic Decoupling and Classification (CDC) for Dassl and CoOp",
    python_requires=">=3.9",
    packages=[],
    py_modules=[],
    install_requires=[
        # A torch and a torchvision from the same index: a CPU-only torch does not load beside PyPI's torchvision.
        "torch>=2.0",
        "torchvision>=0.15",
        # OpenAI publishes CLIP on GitHub only. This copy of it on PyPI follows it closest, and like all copies there
        # imports pkg_resources, which setuptools 81 removed.
        "clip-anytorch==2.6.0",
        "setuptools<81",
        "matplotlib",  # figures, and the fonts of the embedded pictures
        "numpy",
        "pillow>=9.1",
        "scikit-learn",  # macro F1, and the handwritten digits
        "scipy",  # the labels of Stanford Cars and Oxford Flowers, MATLAB files
        "tabulate",
        "tensorboard",
        "tqdm",
        "yacs",
    ],
    extras_require={"test": ["pytest>=7", "ruff"]},
)
