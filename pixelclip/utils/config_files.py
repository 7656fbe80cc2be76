"""Find PixelCLIP's config files from any folder, in a checkout or in an installed package."""

import os
from pathlib import Path

from detectron2.utils.file_io import PathManager

_PACKAGE = Path(__file__).resolve().parents[1]
# An installed package holds the repository's folder configs/; see setup.py.
_CONFIG_ROOTS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def find_config(path: str | os.PathLike[str]) -> str:
    """Path of a config file, which may be one of PixelCLIP's own.

    Args:
        path: of any file; or of one below PixelCLIP's ``configs``, with or without that folder's
            name, such as "configs/pixelclip_vitb16.yaml" or "demo/toy.yaml".

    Returns:
        ``path`` itself where such a file exists, and else the absolute path of PixelCLIP's own.

    Raises:
        FileNotFoundError: there is neither such a file nor such a config of PixelCLIP's.
    """
    given = os.fspath(path)
    if PathManager.isfile(given):
        return given
    parts = Path(given).parts
    below = Path(*parts[1:]) if parts[:1] == ("configs",) else Path(given)
    if not below.is_absolute() and ".." not in below.parts:
        for root in _CONFIG_ROOTS:
            if (root / below).is_file():
                return str(root / below)
    raise FileNotFoundError(
        f"The config file {given!r} does not exist, and PixelCLIP brings none of that name. It "
        f"brings {', '.join(list_configs())}."
    )


def list_configs() -> list[str]:
    """Names of the configs that PixelCLIP brings, such as "configs/pixelclip_vitb16.yaml"."""
    root = next((root for root in _CONFIG_ROOTS if root.is_dir()), _CONFIG_ROOTS[0])
    files = (path.relative_to(root) for path in root.rglob("*.yaml"))
    own = [file for file in files if not file.name.startswith("Base-")]
    return [str(Path("configs", file)) for file in sorted(own)]
