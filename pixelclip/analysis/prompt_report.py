"""Figures and pictures of what the class prompts of one or several checkpoints mean."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from pixelclip.analysis.cluster_agreement import measure_agreement
from pixelclip.analysis.cluster_images import (
    draw_cluster_usage,
    draw_named_clusters,
    draw_prompt_map,
)
from pixelclip.analysis.example_images import load_example_picture
from pixelclip.analysis.prompt_findings import Findings, Subject, look_at_checkpoint
from pixelclip.analysis.prompt_plane import embed_in_plane
from pixelclip.utils.atomic_write import atomic_writer
from pixelclip.utils.visualization import save_figure

logger = logging.getLogger(__name__)


def report_prompts(
    cfg: CfgNode, checkpoints: Sequence[str], subject: Subject, folder: Path, note: str = ""
) -> list[Path]:
    """Write figures and pictures of the class prompts of checkpoints into a folder.

    ``prompts.json`` has everything in figures. ``clusters.png`` shows the same pictures in the
    clusters of each checkpoint, named by the nearest class name. For each checkpoint,
    ``plane_NAME.png`` has prompts and class names in a plane (without scikit-learn it is left out,
    which the log says) and ``usage_NAME.png`` the share of each cluster in the data set. What was
    counted over the data set is kept and taken again for the same weights and data.

    Args:
        cfg: of the training, but for the number of class prompts, which each checkpoint has.
        checkpoints: files.
        subject: what to look at them with.
        folder: is made where it is missing.
        note: stands below each picture, beside the checkpoint's name.

    Returns:
        The files.

    Raises:
        ValueError, FileNotFoundError: a checkpoint or picture that cannot be used.
    """
    if not checkpoints:
        raise ValueError("No checkpoint was given; expected at least one.")
    for path in checkpoints:
        if not Path(path).is_file():
            raise FileNotFoundError(f"The checkpoint {path!r} does not exist.")
    pictures = [load_example_picture(cfg, name) for name in subject.pictures]
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(checkpoints, desc="Checkpoints")
    findings = [look_at_checkpoint(cfg, path, subject, pictures, folder) for path in bar]
    names = name_checkpoints(findings)
    written = [_write_figures(findings, names, subject, folder / "prompts.json")]
    figure = draw_named_clusters(
        [picture.pixels for picture in pictures],
        list(zip(*(one.maps for one in findings), strict=True)),
        names,
        _caption([*dict.fromkeys(checkpoints)], note),
    )
    written.append(folder / "clusters.png")
    save_figure(figure, written[-1])
    for one, name in zip(findings, names, strict=True):
        written += _draw(one, name, subject, folder, _caption([one.checkpoint], note))
    return written


def name_checkpoints(findings: Sequence[Findings]) -> list[str]:
    """Short names: the number of prompts where that tells them apart, else folder and file."""
    names = [f"k = {len(one.prompts)}" for one in findings]
    if len(set(names)) == len(names):
        return names
    return [str(Path(*Path(one.checkpoint).parts[-2:])) for one in findings]


def _caption(checkpoints: Sequence[str], note: str) -> str:
    files = ", ".join(str(Path(*Path(path).parts[-2:])) for path in checkpoints)
    return f"{note}\nWeights: {files}" if note else f"Weights: {files}"


def _draw(
    findings: Findings, name: str, subject: Subject, folder: Path, caption: str
) -> list[Path]:
    suffix = "".join(letter if letter.isalnum() else "_" for letter in name.replace(" = ", ""))
    figures = {}
    try:
        places = embed_in_plane(findings.prompts.numpy(), findings.names.numpy())
        figures["plane"] = draw_prompt_map(*places, subject.class_names, caption)
    except ImportError as error:
        logger.warning("%s", error)
    if findings.counts is not None:
        usage = findings.counts.usage
        figures["usage"] = draw_cluster_usage(usage, findings.cluster_names, caption)
    paths = []
    for kind, figure in figures.items():
        paths.append(folder / f"{kind}_{suffix}.png")
        save_figure(figure, paths[-1])
    return paths


def _write_figures(
    findings: Sequence[Findings], names: Sequence[str], subject: Subject, path: Path
) -> Path:
    content = {
        "class_names": subject.class_names,
        "dataset": subject.dataset,
        "checkpoints": [
            {
                "name": name,
                "file": one.checkpoint,
                **_describe(one, subject.dataset),
            }
            for one, name in zip(findings, names, strict=True)
        ],
    }
    with atomic_writer(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    return path


def _describe(findings: Findings, dataset: str | None) -> dict[str, Any]:
    """Names of the clusters and, over a data set, their agreement with its classes."""
    clusters: list[dict[str, Any]] = [
        {"nearest": [asdict(near) for near in of_one]} for of_one in findings.nearest
    ]
    if findings.counts is None or dataset is None:
        return {"clusters": clusters}
    agreement = measure_agreement(findings.counts.pixels)
    classes = (*MetadataCatalog.get(dataset).stuff_classes, None)  # the last one for index -1
    for index, cluster in enumerate(clusters):
        cluster["share"] = float(findings.counts.usage[index])
        cluster["images"] = int(findings.counts.images[index])
        cluster["class_of_most_pixels"] = classes[agreement.majority[index]]
        cluster["matched_class"] = classes[agreement.matched[index]]
    return {
        "num_images": findings.counts.num_images,
        "skipped_images": findings.counts.skipped,
        "purity": agreement.purity,
        "nmi": agreement.nmi,
        "matched_accuracy": agreement.accuracy,
        "clusters": clusters,
    }
