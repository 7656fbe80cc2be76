"""The PixelCLIP package; tools/install_detectron2.py or the official build adds Detectron2."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

# What PixelCLIP itself imports.
PIXELCLIP_REQUIRES = [
    "torch>=2.1",
    "torchvision>=0.16",
    "open_clip_torch>=2.24",
    "timm>=1.0",
    "numpy>=1.26",
    "scipy>=1.11",
    "scikit-image>=0.22",
    "Pillow>=9.5",
    "huggingface_hub>=0.26",
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.9",
    "jinja2>=3.1",
    "markdown>=3.4",
    "pycocotools>=2.0.7",
    "PyYAML>=6.0",
    "tqdm>=4.60",
]

# What Detectron2 imports where PixelCLIP uses it. PyPI has no detectron2 that could ask for it.
DETECTRON2_REQUIRES = [
    "cityscapesscripts>=2.2",
    "cloudpickle>=2.0",
    "hydra-core>=1.1",
    "matplotlib>=3.7",
    "omegaconf>=2.1",
    "opencv-python-headless>=4.8",  # the color augmentation of SSD, in Detectron2's PointRend
    "setuptools>=70.1,<81",  # detectron2.model_zoo imports pkg_resources, which later ones lack
    "tabulate>=0.8",
    "tensorboard>=2.12",
    "termcolor>=1.1",
    "yacs>=0.1.8",
]

# What single tools need; each says so when it is missing.
OPTIONAL_REQUIRES = {
    "masks": ["transformers>=4.57"],  # the SAM family in tools/generate_masks.py
    "transformers": ["transformers>=4.57"],  # tools/convert_checkpoint.py --to transformers
    "visualization": ["scikit-learn>=1.3"],  # t-SNE in tools/visualize_prompts.py
    "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2"],  # tools/export.py
    "web": ["gradio>=6"],  # tools/web_demo.py
}
ALL_OPTIONAL_REQUIRES = [name for names in OPTIONAL_REQUIRES.values() for name in names]

DEVELOPMENT_REQUIRES = [
    "diffusers>=0.35",  # the tests load exported prompts with it
    "hypothesis>=6.100",
    "ipykernel>=6.29",  # runs the tutorial notebook, which nbclient drives
    "markdown-it-py>=3",  # reads the documents, for make docs-check
    "mypy>=1.10",
    "nbclient>=0.10",
    "pdoc>=14",
    "pytest>=8.2",
    "pytest-xdist>=3.6",  # make test has two workers
    "ruff>=0.6",
    "selenium>=4.20",  # the tests of the web page; Chromium comes from the system
    "supervision>=0.31",  # to_supervision; earlier ones replace OpenCV without windows
]

# The wheel holds the folders of the repository that are not packages, so that it works anywhere.
MAPPED_FOLDERS = {"pixelclip.configs": "configs", "pixelclip_tools": "tools"}
# An editable install takes the folders as they are: with all packages in one place it is an entry
# of sys.path. A finder would come too late where the working directory has a folder named
# pixelclip, as the one that contains the clone does.
IS_EDITABLE = "editable_wheel" in sys.argv
PACKAGES = find_packages(include=["pixelclip", "pixelclip.*"])
SOURCE = (Path(__file__).parent / "pixelclip" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.findall(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)[0]

setup(
    name="pixelclip",
    version=VERSION,
    description="Open-vocabulary semantic segmentation learned without labels, on Detectron2",
    author="PixelCLIP contributors",
    license="MIT",
    python_requires=">=3.10",
    packages=PACKAGES if IS_EDITABLE else [*PACKAGES, *MAPPED_FOLDERS],
    package_dir={"": "."} if IS_EDITABLE else MAPPED_FOLDERS,
    package_data={
        "pixelclip": ["py.typed", "**/*.json", "**/*.txt.gz", "**/*.safetensors", "**/*.jinja"],
        "pixelclip.configs": ["**/*.yaml"],
    },
    # Not an entry point: it finds its module in an editable install too.
    scripts=["tools/pixelclip"],
    install_requires=PIXELCLIP_REQUIRES + DETECTRON2_REQUIRES,
    extras_require={
        **OPTIONAL_REQUIRES,
        "all": ALL_OPTIONAL_REQUIRES,
        "dev": ALL_OPTIONAL_REQUIRES + DEVELOPMENT_REQUIRES,
    },
)
