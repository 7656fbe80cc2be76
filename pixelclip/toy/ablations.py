"""The paper's comparisons, repeated in the embedded world.

Each variant is the demo's training with a few config keys changed, several times with other seeds.
The settings were chosen on ``toy_scenes_val``; what is reported is measured on ``toy_scenes_test``.
"""

import fcntl
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from pixelclip.engine import Trainer
from pixelclip.engine.setup import load_config
from pixelclip.toy.clip_masks import write_clip_masks
from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.utils.atomic_write import atomic_writer

logger = logging.getLogger(__name__)

REPORTED_ON = "toy_scenes_test"
PUBLISHED = "as published"

_CONFIG_FILE = "configs/demo/toy.yaml"


@dataclass(frozen=True)
class Variant:
    """A training that differs from the published one.

    Attributes:
        group: heading in the table.
        name: row in the table.
        overrides: config keys and values, alternating.
        is_trained: False for a training-free dense path.
        paper: "worse" where the paper found it worse than the published method, "" where the paper
            has no such figure.
    """

    group: str
    name: str
    overrides: tuple[Any, ...] = ()
    is_trained: bool = True
    paper: str = ""


def _training_free(path: str, name: str) -> Variant:
    return Variant("Training-free", name, ("MODEL.CLIP.DENSE_PATH", path), False, "worse")


_COMPONENTS, _TEACHER, _CLUSTERS = "Components", "Teacher", "Number of clusters k"
_MASKS, _TEMPLATES = "Masks", "Prompt templates (training / inference)"

VARIANTS: tuple[Variant, ...] = (
    Variant("Method", PUBLISHED),
    _training_free("plain", "CLIP's patch features"),
    _training_free("maskclip", "MaskCLIP (value path)"),
    _training_free("sclip", "SCLIP"),
    _training_free("clearclip", "ClearCLIP"),
    _training_free("naclip", "NACLIP"),
    _training_free("pixelclip", "PixelCLIP's dense path, untrained"),
    Variant(_COMPONENTS, "no clustering", ("MODEL.PIXELCLIP.ASSIGNMENT", "none"), paper="worse"),
    Variant(
        _COMPONENTS,
        "no Sinkhorn: each mask to its nearest cluster",
        ("MODEL.PIXELCLIP.ASSIGNMENT", "argmax"),
        paper="worse",
    ),
    Variant(
        _COMPONENTS,
        "no learnable prompts: fixed random ones",
        ("SOLVER.PROMPT_MULTIPLIER", 0.0),
        paper="worse",
    ),
    Variant(
        _COMPONENTS,
        "no text encoder: free vectors",
        ("MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS", "free_vectors"),
        paper="worse",
    ),
    Variant(
        _COMPONENTS,
        "class names instead of prompts",
        (
            "MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS",
            "class_names",
            "MODEL.PIXELCLIP.CLUSTER_NAMES",
            "toy_scenes_20",
        ),
    ),
    Variant(_TEACHER, "the student", ("MODEL.PIXELCLIP.MOMENTUM", 0.0), paper="worse"),
    Variant(_TEACHER, "momentum 0.99", ("MODEL.PIXELCLIP.MOMENTUM", 0.99)),
    Variant(_TEACHER, "CLIP as it was (frozen)", ("MODEL.PIXELCLIP.MOMENTUM", 1.0)),
    Variant(_CLUSTERS, "k = 12", ("MODEL.PIXELCLIP.NUM_CLUSTERS", 12)),
    Variant(_CLUSTERS, "k = 48", ("MODEL.PIXELCLIP.NUM_CLUSTERS", 48)),
    Variant(
        _CLUSTERS,
        "k = 48, twice the batch",
        ("MODEL.PIXELCLIP.NUM_CLUSTERS", 48, "SOLVER.IMS_PER_BATCH", 16),
    ),
    Variant(
        _MASKS,
        "k-means of the toy CLIP's own features, like the paper's DINO masks",
        ("DATASETS.TRAIN", ("toy_scenes_clip_masks_train",)),
        paper="worse",
    ),
    Variant(
        _TEMPLATES,
        "one / eight",
        ("MODEL.PIXELCLIP.TEST_TEMPLATES", "imagenet_select"),
    ),
    Variant(
        _TEMPLATES,
        "eight / eight",
        (
            "MODEL.PIXELCLIP.PROMPT_ENSEMBLE",
            "imagenet_select",
            "MODEL.PIXELCLIP.TEST_TEMPLATES",
            "imagenet_select",
        ),
    ),
)


def toy_config(
    overrides: Sequence[Any], dataset: str, output: Path, seed: int, config_file: str = _CONFIG_FILE
) -> CfgNode:
    """The demo's config with some keys changed, a test set, an output folder and a seed.

    Raises:
        ValueError: a key does not exist, or a value cannot be.
    """
    cfg = load_config(config_file, [str(override) for override in overrides])
    cfg.DATASETS.TEST = (dataset,)
    cfg.OUTPUT_DIR = str(output)
    cfg.SEED = seed
    cfg.freeze()
    return cfg


def reproduce_ablations(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    output: Path,
    dataset: str = REPORTED_ON,
    options: Sequence[Any] = (),
) -> Path:
    """Train and evaluate each variant with each seed, and write the table.

    What is finished is not repeated, and a training that was cut short goes on. Several processes
    may share the work, as by their seeds: each run is made once.

    Args:
        variants: out of ``VARIANTS``.
        seeds: for the trainings; a training-free variant is evaluated once.
        output: folder for the runs and for ``ablations.md`` and ``ablations.json``.
        dataset: labelled scenes to measure on.
        options: config keys and values, alternating, for all variants.

    Returns:
        Path of the table.

    Raises:
        ValueError: a config key or value cannot be, or the folder holds runs with other options.
    """
    for variant in variants:
        toy_config((*options, *variant.overrides), dataset, output, seeds[0])
    _check_options(output / dataset, options)
    runs = [(v, seed) for seed in seeds for v in variants if v.is_trained or seed == seeds[0]]
    results: dict[str, list[dict[str, float]]] = {}
    for variant, seed in tqdm(runs, "ablations", unit="run"):
        figures = run_variant(variant, seed, output / dataset, dataset, options)
        results.setdefault(variant.name, []).append(figures)
        _write(output / "ablations.json", json.dumps(results, indent=2))
        _write(output / "ablations.md", ablation_table(variants, results))
    return output / "ablations.md"


def _check_options(folder: Path, options: Sequence[Any]) -> None:
    stored, given = folder / "options.json", [str(option) for option in options]
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(stored, json.dumps(given))
    elif (before := json.loads(stored.read_text())) != given:
        raise ValueError(
            f"{folder} holds runs with the options {before}, and these are {given}: give the same "
            "options, or another output folder."
        )


def run_variant(
    variant: Variant, seed: int, output: Path, dataset: str, options: Sequence[Any] = ()
) -> dict[str, float]:
    """Train a variant with a seed, unless that is done, and return its figures in percent.

    The variant's own overrides come after the options.

    Returns:
        ``mIoU`` over all classes, ``stuff`` and ``things``.
    """
    folder = output / _folder_name(variant.name) / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        # Where another process makes this run, wait, and take its figures.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = folder / "figures.json"
        if not stored.exists():
            cfg = toy_config((*options, *variant.overrides), dataset, folder, seed)
            _write(stored, json.dumps(_run(cfg, variant.is_trained)))
        figures: dict[str, float] = json.loads(stored.read_text())
    return figures


def _run(cfg: CfgNode, is_trained: bool) -> dict[str, float]:
    if "toy_scenes_clip_masks_train" in cfg.DATASETS.TRAIN:
        write_clip_masks(cfg)
    # Prompts and decoder begin at random.
    seed_all_rng(cfg.SEED)
    return summarise(_train(cfg) if is_trained else _evaluate(cfg))


def summarise(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Mean IoU over all classes, over stuff and over things, of SemSegEvaluator's metrics."""
    per_class = {name: metrics["sem_seg"][f"IoU-{name}"] for name in CLASS_NAMES}
    things = [iou for name, iou in per_class.items() if name not in STUFF_NAMES]
    return {
        "mIoU": metrics["sem_seg"]["mIoU"],
        "stuff": mean(per_class[name] for name in STUFF_NAMES),
        "things": mean(things),
    }


def ablation_table(
    variants: Sequence[Variant], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> str:
    """A Markdown table: mean and standard deviation over the seeds, and the paper's finding.

    Whether the finding is the same is "undecided" where the difference is not larger than the
    standard deviations of both.

    Args:
        variants: rows, in their order; those without results are left out.
        results: figures of each seed by variant name.
    """
    reference = results.get(PUBLISHED)
    lines = [
        "| variant | mIoU | stuff | things | against the published form | in the paper | agrees |",
        "|---|---|---|---|---|---|---|",
    ]
    group = ""
    for variant in variants:
        if variant.name not in results:
            continue
        if variant.group != group:
            group = variant.group
            lines.append(f"| **{group}** | | | | | | |")
        lines.append(_row(variant, results[variant.name], reference))
    return "\n".join(lines) + "\n"


def _row(
    variant: Variant,
    figures: Sequence[Mapping[str, float]],
    reference: Sequence[Mapping[str, float]] | None,
) -> str:
    cells = [_mean_and_spread([run[key] for run in figures]) for key in ("mIoU", "stuff", "things")]
    difference, agrees = "", ""
    if reference and variant.name != PUBLISHED:
        by = _mean(figures) - _mean(reference)
        difference = f"{by:+.1f}"
        if variant.paper:
            is_clear = abs(by) > max(_spread(figures), _spread(reference))
            agrees = ("yes" if by < 0 else "no") if is_clear else "undecided"
    return f"| {' | '.join([variant.name, *cells, difference, variant.paper, agrees])} |"


def _mean(figures: Iterable[Mapping[str, float]]) -> float:
    return mean(run["mIoU"] for run in figures)


def _spread(figures: Sequence[Mapping[str, float]]) -> float:
    return stdev(run["mIoU"] for run in figures) if len(figures) > 1 else 0.0


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def _train(cfg: CfgNode) -> Mapping[str, Any]:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return _evaluate(cfg, trainer.model)


def _evaluate(cfg: CfgNode, model: torch.nn.Module | None = None) -> Mapping[str, Any]:
    return Trainer.test(cfg, Trainer.build_model(cfg) if model is None else model)


def _folder_name(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


def _write(path: Path, text: str) -> None:
    with atomic_writer(path) as file:
        file.write(text.encode())
