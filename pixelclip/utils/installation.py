"""What differs between installations: the configs' place, optional packages."""

import importlib
import os
from pathlib import Path
from types import ModuleType

from detectron2.utils.file_io import PathManager

_PACKAGE = Path(__file__).resolve().parents[1]


def find_config(path: str | os.PathLike[str]) -> str:
    """Path of a config file: ``path`` itself where it exists, else PixelCLIP's own of that name.

    Args:
        path: of PixelCLIP's own with or without their folder, as in "configs/demo/toy.yaml".

    Raises:
        FileNotFoundError: there is neither; it lists PixelCLIP's own.
    """
    given = os.fspath(path)
    if PathManager.isfile(given):
        return given
    root = next((p for p in (_PACKAGE, _PACKAGE.parent) if (p / "configs").is_dir()), _PACKAGE)
    own = {str(p.relative_to(root)): str(p) for p in sorted(root.glob("configs/**/*.yaml"))}
    for name in (given, os.path.join("configs", given)):
        if name in own:
            return own[name]
    listed = ", ".join(name for name in own if "Base-" not in name)
    raise FileNotFoundError(
        f"The config file {given!r} does not exist, and PixelCLIP has none of that name. It has "
        f"{listed}."
    )


def import_optional(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: its name, such as "onnxruntime".
        extra: the extra of ``setup.py`` that installs it.

    Raises:
        ImportError: the package is not installed; says which extra brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Our extra does not install what another package lacks.
        if error.name != module.split(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"This needs {error.name}, which is not installed. To install it: "
            f'pip install "pixelclip[{extra}]"',
            name=error.name,
        ) from error
