"""Masks of graph-based superpixels, merged step by step: no weights, no GPU."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import color, filters, graph, segmentation

from pixelclip.data.sa1b_files import FoundMask
from pixelclip.mask_generation.base_generator import BaseGenerator

Labels = NDArray[np.int64]
Attributes = dict[str, Any]

# These and the working side were chosen on images with regions drawn by people; docs/masks.md says
# what they reach on others.
_FELZENSZWALB = {"scale": 50, "sigma": 0.8, "min_size": 30}
# An edge between regions (Sobel's, in Lab) counts so much more than the distance of their colors.
_EDGE_WEIGHT = 4.0
# Large regions stay apart longer than small ones: the difference grows with the smaller one's share
# of the image to this power.
_SIZE_POWER = 0.25
_MERGING_THRESHOLDS = np.geomspace(6.5, 48, 6)
# Share of the image below which a region is not a mask.
_SMALLEST_SHARE = 0.002


class SuperpixelGenerator(BaseGenerator):
    """Regions of Felzenszwalb's segmentation, and those that they merge into.

    The regions' adjacency graph is merged greedily, the most similar neighbors first. Each region
    that stands at one of several thresholds is a mask, so that there are small and large ones.
    ``stability_score`` is the share of the thresholds at which it stands; nothing predicts
    ``predicted_iou``, which is 1.

    Source: Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", 2004.
    """

    name = "superpixels"
    working_side = 480

    def find(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`BaseGenerator.find`."""
        levels = list(merge_superpixels(image))
        for level, number, times in _distinct_regions(levels):
            yield FoundMask(levels[level] == number, stability_score=times / len(levels))


def merge_superpixels(image: NDArray[np.uint8]) -> Iterator[Labels]:
    """Region numbers (h, w) of an image (h, w, 3) RGB at each threshold, finest first; nested."""
    labels = segmentation.felzenszwalb(image, **_FELZENSZWALB)
    regions = _build_graph(labels, color.rgb2lab(image))
    for threshold in _MERGING_THRESHOLDS:
        yield graph.merge_hierarchical(
            labels, regions, threshold, rag_copy=False, in_place_merge=True,
            merge_func=_join_regions, weight_func=_join_edges,
        )  # fmt: skip


def _distinct_regions(levels: Sequence[Labels]) -> Iterable[tuple[int, int, int]]:
    """Regions of nested levels, each once: last level, number there, how many levels have it."""
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for level, labels in enumerate(levels):
        numbers, first_pixels, areas = np.unique(labels, return_index=True, return_counts=True)
        # As levels are nested, regions of the same first pixel and area are the same.
        for number, *key in zip(*(x.tolist() for x in (numbers, first_pixels, areas)), strict=True):
            if key[1] >= _SMALLEST_SHARE * labels.size:
                times = found.get(tuple(key), (0, 0, 0))[2]
                found[tuple(key)] = level, number, times + 1
    return found.values()


def _build_graph(labels: Labels, lab: NDArray[np.float64]) -> graph.RAG:
    """The regions with their sizes and colors, neighbors with what lies between them."""
    if not labels.any():  # skimage needs two regions
        regions = graph.RAG()
        regions.add_node(0, labels=[0])
        return regions
    edges = np.sqrt(sum(filters.sobel(lab[..., channel]) ** 2 for channel in range(3)))
    regions = graph.rag_boundary(labels, edges, connectivity=1)
    flat = labels.ravel()
    pixels = np.bincount(flat)
    colors = np.stack([np.bincount(flat, channel) for channel in lab.reshape(-1, 3).T], axis=1)
    for number, node in regions.nodes(data=True):
        node.update(share=pixels[number] / flat.size, color=colors[number] / pixels[number])
    for first, second, between in regions.edges(data=True):
        nodes = regions.nodes[first], regions.nodes[second]
        between["edge"] = between["weight"]
        between["weight"] = _difference(*nodes, between["edge"])
    return regions


def _difference(first: Attributes, second: Attributes, edge: float) -> float:
    distance = np.linalg.norm(first["color"] - second["color"])
    smaller = min(first["share"], second["share"])
    return float((_EDGE_WEIGHT * edge + distance) * smaller**_SIZE_POWER)


def _join_regions(regions: graph.RAG, source: int, target: int) -> None:
    """Give the target the size and color of both."""
    first, second = regions.nodes[source], regions.nodes[target]
    share = first["share"] + second["share"]
    mixed = first["share"] * first["color"] + second["share"] * second["color"]
    second.update(share=share, color=mixed / share)


def _join_edges(regions: graph.RAG, source: int, target: int, neighbor: int) -> Attributes:
    """What lies between two regions that became one, and their neighbor."""
    sides = [regions[s][neighbor] for s in (source, target) if neighbor in regions[s]]
    count = sum(side["count"] for side in sides)
    edge = sum(side["edge"] * side["count"] for side in sides) / count
    weight = _difference(regions.nodes[target], regions.nodes[neighbor], edge)
    return {"weight": weight, "count": count, "edge": edge}
