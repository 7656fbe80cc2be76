"""Text features as a file, for an exported classifier that takes any words."""

import os
from collections.abc import Sequence

import numpy as np

from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import atomic_writer


def save_text_features(
    model: PixelCLIP, class_names: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Write the unit vectors of words as a NumPy archive (``.npz``).

    It holds ``text_features`` (C, d) float32 and ``class_names`` (C,), texts.

    Raises:
        ValueError: the path does not end in ``.npz``, or as :meth:`PixelCLIP.set_vocabulary`.
        OSError: the file cannot be written.
    """
    if os.path.splitext(path)[1] != ".npz":
        raise ValueError(f"The output file {os.fspath(path)!r} of text features must end in .npz.")
    model.set_vocabulary(class_names)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    features = model.text_classifier.cpu().numpy().astype(np.float32)
    with atomic_writer(path) as file:
        np.savez(file, text_features=features, class_names=np.array(list(class_names)))
