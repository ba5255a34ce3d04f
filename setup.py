"""What this project needs; of its own it installs the name `cdc` alone, and that for a checkout (`pip install -e .`).

As with CoOp, the checkout is where this runs (`python train.py`, `bash scripts/...`, `python -m tools...`): its folders
are called `datasets`, `tools` and `tests`, which in site-packages would shadow other people's packages of these names
(Hugging Face's `datasets` for one). So `pip install -e .` brings the dependencies below and `cdc`, by which programs in
any folder use what this checkout has.

The ranges are those with which the tests pass: `make test-lowest` runs them on the lower bounds, `make test-newest` on
the newest versions of the day. One exact version of each within its range stands in requirements.lock.
"""

from setuptools import setup

setup(
    name="cdc-dassl",
    version="0.1.0",
    license="MIT",
    description="Causality-guided semantic Decoupling and Classification (CDC) for Dassl and CoOp",
    python_requires=">=3.9",
    packages=["cdc"],
    py_modules=[],
    install_requires=[
        # A torch and a torchvision from the same index: a CPU-only torch does not load beside PyPI's torchvision.
        # PyTorch before 2.3 works with numpy 1 only, and does not say so to pip.
        "torch>=2.0",
        "torchvision>=0.15.1",
        # OpenAI publishes CLIP on GitHub only. Of PyPI's copies of its modules, this is a wheel and takes any torch.
        # It wants pkg_resources, which setuptools 81 removed: see trainers/modules/clip_import.py.
        "clip-anytorch==2.6.0",
        "matplotlib>=3.6",  # figures, and the fonts of the embedded pictures
        "numpy>=1.23",
        "packaging>=22",
        "pillow>=9.4",
        "pyyaml>=6.0.3",
        "safetensors>=0.4.3",  # what tools.export writes, and weights of CLIP
        "scikit-learn>=1.1",  # macro F1, and the handwritten digits
        "scipy>=1.8",  # the labels of Stanford Cars and Oxford Flowers, MATLAB files
        "tabulate>=0.8.10",
        "tensorboard>=2.12",  # older ones want a protobuf that Ray does not take
        "tqdm>=4.62",
        "yacs>=0.1.8",
    ],
    extras_require={
        "open_clip": ["open_clip_torch>=3.0"],  # its models as backbone: docs/backbones.md
        # Many runs side by side, on several machines: docs/cluster.md. The first with `ray symmetric-run`.
        "cluster": ["ray>=2.49"],
        "hub": ["huggingface_hub>=0.25"],  # trained prompts and backbones of the Hugging Face Hub: docs/sharing.md
        "report": ["jinja2>=3.0", "plotly>=5.15"],  # one page of all runs: docs/report.md
        "search": ["optuna>=4.0"],  # settings for one's own data: docs/search.md
        "wandb": ["wandb>=0.19.10"],  # a run's figures on Weights & Biases: `--report-to wandb`
        "test": [
            "huggingface_hub>=0.25",
            "jinja2>=3.0",
            "mypy>=1.19",
            "open_clip_torch>=3.0",
            "optuna>=4.0",
            "playwright>=1.40",  # the report in a browser, where there is Chromium
            "plotly>=5.15",
            "pytest>=7",
            "pytest-cov>=7",
            "ray>=2.49",
            "ruff>=0.12",
            "types-PyYAML>=6.0.12",
            "types-tabulate>=0.9",
            "types-tqdm>=4.66",
            "wandb>=0.19.10",
        ],
    },
)
