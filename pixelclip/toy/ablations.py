"""The paper's comparisons, repeated on the toy benchmark.

Each variant is the demo's training with a few config keys changed, several times with other seeds.
The settings were chosen on ``toy_scenes_val``; what is reported is measured on ``toy_scenes_test``.
"""

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.engine import Trainer
from pixelclip.engine.setup import load_config
from pixelclip.toy.datasets import write_clip_masks
from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.utils.atomic_write import write_text

REPORTED_ON = "toy_scenes_test"
PAPER_SETTING = "paper setting"
_TRAINING_FREE = "Training-free"
_WEIGHTS = "model_final.pth"

Metrics = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A training that differs from the paper setting, its evaluation, or a training-free method."""

    group: str  # heading in the table
    name: str  # row in the table
    overrides: str = ""  # config keys and values, separated by blanks
    paper: str = ""  # "worse" where the paper found it worse, "" where it has no such result
    base: "Variant | None" = None  # whose weights are evaluated with these overrides, too

    @property
    def is_trained(self) -> bool:
        """Whether the result depends on a training."""
        return self.base.is_trained if self.base else self.group != _TRAINING_FREE

    def options(self) -> list[str]:
        """Config keys and values, alternating."""
        return [*(self.base.options() if self.base else ()), *self.overrides.split()]


_PATH, _MODEL = "MODEL.CLIP.DENSE_PATH", "MODEL.PIXELCLIP"
_COMPONENTS, _TEACHER, _CLUSTERS = "Components", "Teacher", "Number of clusters k"
_TEMPLATES = "Prompt templates (training / inference)"
_ALONE, _TOGETHER = "Beyond the paper: each alone", "Beyond the paper: together"
_CROPS = f"{_MODEL}.MASK_FEATURES pooled_and_crop {_MODEL}.CROPS.MAX_PER_IMAGE 60"
_CONTAINERS = f"{_MODEL}.CONTAINER_WEIGHT 2.0"
_WARM = f"{_MODEL}.PROMPT_INITIALIZATION kmeans"
_FIXED = "SOLVER.PROMPT_MULTIPLIER 0.0"
_QUEUE = f"{_MODEL}.QUEUE_SIZE 512"
_RATE = "SOLVER.BASE_LR 0.004 SOLVER.BASE_LR_END 0.0004"
# Together they are configs/demo/toy_plus.yaml.
_PARTS = {
    "crops": _CROPS,
    "containers": _CONTAINERS,
    "warm start and fixed prompts": f"{_WARM} {_FIXED}",
    "four times the learning rate": _RATE,
}
_PLUS = " ".join(_PARTS.values())
_SUPERPIXELS, _REGIONS = f"{_MODEL}.TEST_MASKS superpixels", f"{_MODEL}.TEST_MASKS given"
_MEAN = f"{_MODEL}.TEST_MASK_OVERLAP mean"
_CROPS_AT_TEST = f"{_MODEL}.TEST_MASK_FEATURES pooled_and_crop"
_EIGHT_AT_TEST = f"{_MODEL}.TEST_TEMPLATES imagenet_select"

VARIANTS: tuple[Variant, ...] = (
    Variant("Method", PAPER_SETTING),
    Variant(_TRAINING_FREE, "CLIP", f"{_PATH} plain", "worse"),
    Variant(_TRAINING_FREE, "MaskCLIP", f"{_PATH} maskclip", "worse"),
    Variant(_TRAINING_FREE, "SCLIP", f"{_PATH} sclip", "worse"),
    Variant(_TRAINING_FREE, "ClearCLIP", f"{_PATH} clearclip", "worse"),
    Variant(_TRAINING_FREE, "NACLIP", f"{_PATH} naclip", "worse"),
    Variant(_TRAINING_FREE, "PixelCLIP, untrained", f"{_PATH} pixelclip", "worse"),
    Variant(_COMPONENTS, "no clustering", f"{_MODEL}.ASSIGNMENT none", "worse"),
    Variant(_COMPONENTS, "no Sinkhorn: each mask to its nearest cluster",
            f"{_MODEL}.ASSIGNMENT argmax", "worse"),
    Variant(_COMPONENTS, "no learnable prompts: fixed random ones",
            "SOLVER.PROMPT_MULTIPLIER 0.0", "worse"),
    Variant(_COMPONENTS, "no text encoder: free vectors",
            f"{_MODEL}.CLUSTER_EMBEDDINGS free_vectors", "worse"),
    Variant(_COMPONENTS, "class names instead of prompts",
            f"{_MODEL}.CLUSTER_EMBEDDINGS class_names {_MODEL}.CLUSTER_NAMES toy_scenes_20"),
    Variant(_TEACHER, "the student", f"{_MODEL}.MOMENTUM 0.0", "worse"),
    Variant(_TEACHER, "momentum 0.99", f"{_MODEL}.MOMENTUM 0.99"),
    Variant(_TEACHER, "the pretrained CLIP (frozen)", f"{_MODEL}.MOMENTUM 1.0"),
    Variant(_CLUSTERS, "k = 12", f"{_MODEL}.NUM_CLUSTERS 12"),
    Variant(_CLUSTERS, "k = 48", f"{_MODEL}.NUM_CLUSTERS 48"),
    Variant(_CLUSTERS, "k = 48, twice the batch",
            f"{_MODEL}.NUM_CLUSTERS 48 SOLVER.IMS_PER_BATCH 16"),
    Variant("Masks", "k-means of the toy CLIP's own features, like the paper's DINO masks",
            "DATASETS.TRAIN ('toy_scenes_clip_masks_train',)", "worse"),
    Variant(_ALONE, "value path", f"{_MODEL}.MASK_FEATURES pooled_value_path"),
    *(Variant(_ALONE, name, overrides) for name, overrides in _PARTS.items()),
    Variant(_ALONE, "warm start", _WARM),
    Variant(_ALONE, "queue of 512 masks", _QUEUE),
    Variant(_TOGETHER, "plus", _PLUS),
    *(
        Variant(_TOGETHER, f"plus without {left_out}",
                " ".join(part for name, part in _PARTS.items() if name != left_out))
        for left_out in _PARTS
    ),
    Variant(_TOGETHER, "plus with prompts that go on learning",
            f"{_PLUS} SOLVER.PROMPT_MULTIPLIER 2.5"),
    Variant(_TOGETHER, "plus and queue of 512 masks", f"{_PLUS} {_QUEUE}"),
    Variant(_TOGETHER, "plus without Sinkhorn", f"{_PLUS} {_MODEL}.ASSIGNMENT argmax"),
    Variant(_TOGETHER, "plus without clusters",
            f"{_CROPS} {_CONTAINERS} {_RATE} {_MODEL}.ASSIGNMENT none"),
    Variant(_TEMPLATES, "one / eight", _EIGHT_AT_TEST),
    Variant(_TEMPLATES, "eight / eight",
            f"{_MODEL}.PROMPT_ENSEMBLE imagenet_select {_EIGHT_AT_TEST}"),
)  # fmt: skip

# The same weights, with masks at inference.
VARIANTS += tuple(
    Variant("Masks at inference", f"{base.name}, {name}", overrides, base=base)
    for base in VARIANTS
    if base.name in ("NACLIP", PAPER_SETTING, "plus")
    for name, overrides in (
        ("superpixels", _SUPERPIXELS),
        ("mean of superpixels", f"{_SUPERPIXELS} {_MEAN}"),
        ("mean of superpixels with crops", f"{_SUPERPIXELS} {_MEAN} {_CROPS_AT_TEST}"),
        ("true regions", _REGIONS),
        ("true regions with crops", f"{_REGIONS} {_CROPS_AT_TEST}"),
    )
)


def toy_config(overrides: Sequence[str], dataset: str, output: Path, seed: int) -> CfgNode:
    """The demo's config with some keys changed, a test set, an output folder and a seed.

    Raises:
        ValueError: a key does not exist, or a value is not possible.
    """
    cfg = load_config("configs/demo/toy.yaml", overrides)
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
    options: Sequence[str] = (),
) -> Path:
    """Train and evaluate each variant with each seed, and write the table.

    Finished runs are not repeated, and an interrupted training continues. Several processes may
    share the work, for example by their seeds: each run is made once.

    Args:
        seeds: of the trainings; a training-free variant is evaluated once.
        output: folder of the runs, ``ablations.json`` and ``ablations.md``, whose path is returned.
        dataset: labeled scenes to measure on.
        options: config keys and values, alternating, for all variants.

    Raises:
        ValueError: a config key or value is not possible, or the folder holds runs with other
            options.
    """
    for variant in variants:
        toy_config((*options, *variant.options()), dataset, output, seeds[0])
    _check_options(output / dataset, list(options))
    runs = [(v, seed) for seed in seeds for v in variants if v.is_trained or seed == seeds[0]]
    results: dict[str, list[Metrics]] = {}
    for variant, seed in tqdm(runs, "ablations", unit="run"):
        metrics = run_variant(variant, seed, output / dataset, dataset, options)
        results.setdefault(variant.name, []).append(metrics)
        write_text(output / "ablations.json", json.dumps(results, indent=2))
        write_text(output / "ablations.md", ablation_table(variants, results))
    return output / "ablations.md"


def _check_options(folder: Path, options: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "options.json"
    before = json.loads(stored.read_text()) if stored.exists() else options
    if before != options:
        raise ValueError(
            f"{folder} holds runs with the options {before}, and these are {options}: give the "
            "same options, or another output folder."
        )
    write_text(stored, json.dumps(options))


def run_variant(
    variant: Variant, seed: int, output: Path, dataset: str, options: Sequence[str] = ()
) -> Metrics:
    """Train and evaluate a variant with a seed, or read the result of an earlier run.

    The variant's own overrides come after the options.

    Returns:
        IoU in percent: ``mIoU`` over all classes, ``stuff`` and ``things``.
    """
    overrides = [*options, *variant.options()]
    if variant.base and variant.is_trained:
        run_variant(variant.base, seed, output, dataset, options)
        overrides += ["MODEL.WEIGHTS", str(_folder(variant.base, seed, output) / _WEIGHTS)]
    folder = _folder(variant, seed, output)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        # Where another process makes this run, wait, and take its result.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = folder / "result.json"  # metrics.json is Detectron2's, during the training
        if not stored.exists():
            cfg = toy_config(overrides, dataset, folder, seed)
            trains = variant.is_trained and variant.base is None
            write_text(stored, json.dumps(_run(cfg, trains)))
        metrics: Metrics = json.loads(stored.read_text())
    return metrics


def _folder(variant: Variant, seed: int, output: Path) -> Path:
    words = "".join(c if c.isalnum() else " " for c in variant.name).split()
    return output / "_".join(words) / f"seed_{seed}"


def _run(cfg: CfgNode, trains: bool) -> Metrics:
    if "toy_scenes_clip_masks_train" in cfg.DATASETS.TRAIN:
        write_clip_masks(cfg)
    # Prompts and decoder start from random values.
    seed_all_rng(cfg.SEED)
    return summarize(_measure(cfg, trains))


def _measure(cfg: CfgNode, trains: bool) -> Mapping[str, Any]:
    if not trains:
        model = Trainer.build_model(cfg)
        PixelCLIPCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return Trainer.test(cfg, trainer.model)


def summarize(results: Mapping[str, Any]) -> Metrics:
    """Mean IoU over all classes, over stuff and over things, of SemSegEvaluator's results."""
    metrics = results["sem_seg"]
    return {
        "mIoU": metrics["mIoU"],
        "stuff": mean(metrics[f"IoU-{name}"] for name in STUFF_NAMES),
        "things": mean(metrics[f"IoU-{name}"] for name in THING_NAMES),
    }


def ablation_table(
    variants: Sequence[Variant], results: Mapping[str, Sequence[Mapping[str, float]]]
) -> str:
    """A Markdown table: mean and standard deviation over the seeds, and the paper's finding.

    Whether the finding is the same is "undecided" where the difference is not larger than the
    standard deviations of both.

    Args:
        variants: rows, in their order; those without results are left out.
        results: metrics of each seed by variant name.
    """
    headings = "variant", "mIoU", "stuff", "things", "against the paper setting", "in the paper"
    rows = [[*headings, "agrees"], ["---"] * 7]
    groups: set[str] = set()
    for variant in variants:
        if variant.name in results:
            if variant.group not in groups:
                groups.add(variant.group)
                rows.append([f"**{variant.group}**", *[""] * 6])
            rows.append(_row(variant, results[variant.name], results.get(PAPER_SETTING)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(
    variant: Variant,
    metrics: Sequence[Mapping[str, float]],
    reference: Sequence[Mapping[str, float]] | None,
) -> list[str]:
    difference, agrees = "", ""
    if reference and variant.name != PAPER_SETTING:
        own, others = ([run["mIoU"] for run in runs] for runs in (metrics, reference))
        gain = mean(own) - mean(others)
        difference = f"{gain:+.1f}"
        if variant.paper:
            is_clear = abs(gain) > max(_spread(own), _spread(others))
            agrees = ("yes" if gain < 0 else "no") if is_clear else "undecided"
    columns = ([run[key] for run in metrics] for key in ("mIoU", "stuff", "things"))
    cells = [
        f"{mean(values):.1f}" + (f" ± {_spread(values):.1f}" if len(values) > 1 else "")
        for values in columns
    ]
    return [variant.name, *cells, difference, variant.paper, agrees]


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0
