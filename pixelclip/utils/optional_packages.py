"""Packages that only single tools need: imported at use, with a remedy where one is missing."""

import importlib
from types import ModuleType


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
        # Somebody else's missing package is not mended by our extra.
        if error.name != module.split(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"This needs {error.name}, which is not installed. In PixelCLIP's folder: "
            f'pip install -e ".[{extra}]"',
            name=error.name,
        ) from error
