"""Masks of graph-based superpixels, merged step by step: no weights, no GPU.

Shapes: a working picture of h x w pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage import color, filters, graph, segmentation

from pixelclip.data.sa1b_writing import FoundMask
from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.mask_generation.working_size import enlarge_mask, shrink_image

Labels = NDArray[np.int64]
Attributes = dict[str, Any]

# Longest side in pixels at which regions are looked for. It and what follows were chosen on
# photographs with regions drawn by people; docs/masks.md says what they reach on others.
_WORKING_SIDE = 480
_FELZENSZWALB = {"scale": 50, "sigma": 0.8, "min_size": 30}
# An edge between regions (Sobel's, in Lab) counts so much more than the distance of their colours.
_EDGE_WEIGHT = 4.0
# Large regions stay apart longer than small ones: the difference grows with the smaller one's share
# of the picture to this power.
_SIZE_POWER = 0.25
_MERGING_THRESHOLDS = np.geomspace(6.5, 48, 6)
# Share of the picture below which a region is no mask.
_SMALLEST_SHARE = 0.002


class SuperpixelGenerator(MaskGenerator):
    """Regions of Felzenszwalb's segmentation, and those that they merge into.

    The regions' adjacency graph is merged greedily, the most similar neighbours first. Each region
    that stands at one of several thresholds is a mask, so that there are small and large ones.
    ``stability_score`` is the share of the thresholds at which it stands; nothing predicts
    ``predicted_iou``, which is 1.

    Source: Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", 2004.
    """

    def generate(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """See :meth:`MaskGenerator.generate`."""
        small = shrink_image(image, _WORKING_SIDE)
        levels = list(merge_superpixels(small))
        for region in _distinct_regions(levels, _SMALLEST_SHARE * levels[0].size):
            mask = enlarge_mask(levels[region.level] == region.label, image.shape[:2])
            yield FoundMask(mask, stability_score=region.times / len(levels))


def merge_superpixels(image: NDArray[np.uint8]) -> Iterator[Labels]:
    """Region numbers (h, w) of a picture (h, w, 3) RGB at each threshold, finest first.

    Every region is made up of regions of the level before.
    """
    labels = segmentation.felzenszwalb(image, **_FELZENSZWALB)
    regions = _build_graph(labels, color.rgb2lab(image))
    for threshold in _MERGING_THRESHOLDS:
        yield graph.merge_hierarchical(
            labels,
            regions,
            threshold,
            rag_copy=False,
            in_place_merge=True,
            merge_func=_join_regions,
            weight_func=_join_edges,
        )


class _Region(NamedTuple):
    """A region: the last level that has it, its number there, and how many levels have it."""

    level: int
    label: int
    times: int


def _distinct_regions(levels: Sequence[Labels], smallest_area: float) -> list[_Region]:
    """Regions of nested levels, those of several levels once."""
    found: dict[tuple[int, int], _Region] = {}
    for level, labels in enumerate(levels):
        numbers, first_pixels, areas = np.unique(labels, return_index=True, return_counts=True)
        # As levels are nested, regions of the same first pixel and area are the same.
        for number, *key in zip(*(x.tolist() for x in (numbers, first_pixels, areas)), strict=True):
            if key[1] >= smallest_area:
                before = found.get(tuple(key))
                found[tuple(key)] = _Region(level, number, 1 + (before.times if before else 0))
    return list(found.values())


def _build_graph(labels: Labels, lab: NDArray[np.float64]) -> graph.RAG:
    """The regions with their sizes and colours, neighbours with what lies between them."""
    if not labels.any():  # skimage needs two regions
        regions = graph.RAG()
        regions.add_node(0, labels=[0])
        return regions
    edges = np.sqrt(sum(filters.sobel(lab[..., channel]) ** 2 for channel in range(3)))
    regions = graph.rag_boundary(labels, edges, connectivity=1)
    flat = labels.ravel()
    pixels = np.bincount(flat)
    colours = np.stack([np.bincount(flat, channel) for channel in lab.reshape(-1, 3).T], axis=1)
    for number, node in regions.nodes(data=True):
        node.update(share=pixels[number] / flat.size, colour=colours[number] / pixels[number])
    for first, second, between in regions.edges(data=True):
        nodes = regions.nodes[first], regions.nodes[second]
        between["edge"] = between["weight"]
        between["weight"] = _difference(*nodes, between["edge"])
    return regions


def _difference(first: Attributes, second: Attributes, edge: float) -> float:
    distance = np.linalg.norm(first["colour"] - second["colour"])
    smaller = min(first["share"], second["share"])
    return float((_EDGE_WEIGHT * edge + distance) * smaller**_SIZE_POWER)


def _join_regions(regions: graph.RAG, source: int, target: int) -> None:
    """Give the target the size and colour of both."""
    first, second = regions.nodes[source], regions.nodes[target]
    share = first["share"] + second["share"]
    mixed = first["share"] * first["colour"] + second["share"] * second["colour"]
    second.update(share=share, colour=mixed / share)


def _join_edges(regions: graph.RAG, source: int, target: int, neighbour: int) -> Attributes:
    """What lies between two regions that became one, and their neighbour."""
    sides = [regions[s][neighbour] for s in (source, target) if neighbour in regions[s]]
    count = sum(side["count"] for side in sides)
    edge = sum(side["edge"] * side["count"] for side in sides) / count
    weight = _difference(regions.nodes[target], regions.nodes[neighbour], edge)
    return {"weight": weight, "count": count, "edge": edge}
