"""Class prompts and class names in one plane, by t-SNE."""

import numpy as np
from numpy.typing import NDArray

# scikit-learn's own value; it must stay below the number of points.
_PERPLEXITY = 30.0


def embed_in_plane(
    prompts: NDArray[np.floating], names: NDArray[np.floating], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find places in a plane where what is similar is near.

    The prompts' mean and the names' mean are taken away first: texts that follow one template
    share a direction, which would keep the two groups apart.

    Args:
        prompts: (K, d) cluster embeddings.
        names: (C, d) text features of class names.
        seed: of the start; equal seeds give equal places.

    Returns:
        Places (K, 2) of the prompts and (C, 2) of the names.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: fewer than three points.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE", 2008.
    """
    try:
        from sklearn.manifold import TSNE  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            'The plane of prompts and names needs scikit-learn: pip install -e ".[visualization]"'
        ) from error
    points = np.concatenate([_direction(prompts), _direction(names)])
    if len(points) < 3:
        raise ValueError(f"{len(points)} prompts and names make no plane; expected at least 3.")
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    places = TSNE(metric="cosine", perplexity=perplexity, random_state=seed).fit_transform(points)
    return places[: len(prompts)].astype(float), places[len(prompts) :].astype(float)


def _direction(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unit vectors about their mean; a single one keeps its place."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0) if len(unit) > 1 else unit
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
