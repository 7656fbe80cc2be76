"""The demo's report: figures, pictures and what the class prompts have come to mean."""

import math
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.analysis.prompt_names import (
    NearName,
    count_masks_of_prompts,
    find_nearest_names,
)
from pixelclip.engine import Trainer
from pixelclip.meta_arch import PixelCLIP
from pixelclip.toy.dataset import TOY_SCENES_TEST
from pixelclip.toy.demo_folder import DemoFolder
from pixelclip.toy.report import Block, Commands, Figure, Heading, Paragraph, Table, write_report
from pixelclip.toy.sam_like_masks import make_masks
from pixelclip.toy.scene_files import SPLITS
from pixelclip.toy.scenes import CLASS_NAMES, make_scene
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.toy.things import THING_NAMES
from pixelclip.utils.command_names import runnable_command
from pixelclip.utils.visualization import (
    Picture,
    class_colours,
    colour_labels,
    draw_picture_grid,
    draw_training_curve,
    overlay_masks,
    read_iteration_log,
    save_figure,
)

# Dense paths of the untrained CLIP; what they are called in the report, in full and in short.
DENSE_PATHS_BEFORE = {
    "plain": ("CLIP, patch features", "CLIP, patches"),
    "maskclip": ("CLIP, value path (MaskCLIP)", "CLIP, values"),
    "naclip": ("CLIP, values of neighbours (NACLIP)", "CLIP, neighbours"),
    "pixelclip": ("CLIP, PixelCLIP's dense path", "CLIP, our path"),
}
_AFTER = ("PixelCLIP, trained with masks only", "PixelCLIP")

_SCENES_SHOWN = 4
_BATCHES_CLUSTERED = 25


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation on the test scenes gave.

    Attributes:
        name: the dense path of the untrained CLIP, or "after".
        metrics: of Detectron2's evaluator, in percent.
        model: what was evaluated.
    """

    name: str
    metrics: Mapping[str, float]
    model: PixelCLIP

    def iou(self, class_name: str) -> float:
        """IoU of a class in percent; NaN where it does not occur."""
        return self.metrics[f"IoU-{class_name}"]

    def mean_iou(self, class_names: Sequence[str]) -> float:
        """Mean IoU in percent of those of some classes that occur."""
        values = [self.iou(name) for name in class_names]
        return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def write_demo_report(
    cfg: CfgNode, folder: DemoFolder, evaluations: Sequence[Evaluation]
) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html``, and ``pictures/`` beside them.

    Args:
        cfg: the demo's config.
        folder: of the demo; its training lies in ``training/``.
        evaluations: those before the training, then the one after it.

    Returns:
        The paths of the two files.
    """
    pictures = folder.path / "pictures"
    pictures.mkdir(exist_ok=True)
    with tqdm(total=3, desc="report", unit="part") as progress:
        draw_scenes(cfg, evaluations, pictures / "scenes.png")
        progress.update()
        entries = read_iteration_log(folder.path / "training" / "iterations.jsonl")
        save_figure(draw_training_curve(entries), pictures / "training.png")
        progress.update()
        prompts = _prompt_table(cfg, evaluations[-1].model)
        progress.update()
    blocks: list[Block] = [
        *_results(evaluations),
        *_pictures(),
        *_classes(evaluations),
        *_prompts(prompts),
        *_training(cfg, entries),
        *_times(folder.seconds),
        Heading("To go on"),
        Commands(next_commands(folder.path)),
    ]
    return write_report(folder.path, "Dense recognition learned without labels", blocks)


def next_commands(output: Path) -> list[str]:
    """Three commands that go on from a finished demo."""
    train = runnable_command(".venv/bin/python tools/train_net.py --config-file")
    root = os.environ.get("DETECTRON2_DATASETS") or str(output / "datasets")
    toy = f"DETECTRON2_DATASETS={shlex.quote(root)} {train} configs/demo/toy.yaml"
    weights = shlex.quote(str(output / "training" / "model_final.pth"))
    return [
        f"{toy} MODEL.PIXELCLIP.NUM_CLUSTERS 48 OUTPUT_DIR output/48_clusters",
        f"{toy} --eval-only MODEL.WEIGHTS {weights} TEST.FLIP True OUTPUT_DIR output/mirrored",
        f"{train} configs/pixelclip_vitb16.yaml --num-gpus 8",
    ]


def _results(evaluations: Sequence[Evaluation]) -> list[Block]:
    rows: list[list[str | float]] = [
        [_title(e), e.metrics["mIoU"], e.mean_iou(STUFF_NAMES), e.mean_iou(THING_NAMES)]
        for e in evaluations
    ]
    after, best = evaluations[-1], _best_before(evaluations)
    gain = after.metrics["mIoU"] - best.metrics["mIoU"]
    count = len(DatasetCatalog.get(TOY_SCENES_TEST.name))
    return [
        Paragraph(
            "A tiny CLIP has learned from captioned pictures of the embedded world. PixelCLIP has "
            "fine-tuned it with scenes and unlabelled masks. Both name the class of every pixel of "
            f"{count} test scenes, which neither has seen. From the best training-free way to the "
            f"trained model, mean IoU goes from {best.metrics['mIoU']:.1f} to "
            f"{after.metrics['mIoU']:.1f} ({gain:+.1f})."
        ),
        Table(
            [
                "mean IoU in percent",
                "all",
                f"{len(STUFF_NAMES)} stuff",
                f"{len(THING_NAMES)} things",
            ],
            rows,
            percent=(1, 2, 3),
            strong=(len(rows) - 1,),
        ),
    ]


def _best_before(evaluations: Sequence[Evaluation]) -> Evaluation:
    return max(evaluations[:-1], key=lambda evaluation: evaluation.metrics["mIoU"])


def _pictures() -> list[Block]:
    caption = (
        f"The first {_SCENES_SHOWN} test scenes, not chosen. The training sees such masks, of "
        "other scenes and without any name."
    )
    return [Heading("Pictures"), Figure("pictures/scenes.png", caption)]


def _classes(evaluations: Sequence[Evaluation]) -> list[Block]:
    after, best = evaluations[-1], _best_before(evaluations)
    rows: list[list[str | float]] = [
        [name, "stuff" if name in STUFF_NAMES else "thing"]
        + [evaluation.iou(name) for evaluation in evaluations]
        + [after.iou(name) - best.iou(name)]
        for name in CLASS_NAMES
    ]
    titles = [_short_title(evaluation) for evaluation in evaluations]
    columns = tuple(range(2, 2 + len(evaluations)))
    headings = ["IoU in percent", "kind", *titles, "gain"]
    return [
        Heading("Class by class"),
        Paragraph(f'The gain is that over "{_title(best)}".'),
        Table(headings, rows, percent=columns, signed=(len(headings) - 1,)),
    ]


def _prompt_table(cfg: CfgNode, model: PixelCLIP) -> Table:
    """Class prompts, those with most masks first."""
    loader = iter(Trainer.build_train_loader(cfg, seed=cfg.SEED))
    batches = (next(loader) for _ in range(_BATCHES_CLUSTERED))
    counts = count_masks_of_prompts(model, batches).tolist()
    names = find_nearest_names(model, CLASS_NAMES)
    order = sorted(range(len(counts)), key=lambda prompt: -counts[prompt])
    rows: list[list[str | float]] = [
        [str(prompt), str(counts[prompt]), _join(names[prompt])] for prompt in order
    ]
    return Table(["class prompt", "masks", "nearest names (cosine)"], rows, has_text_at_end=True)


def _join(names: Sequence[NearName]) -> str:
    return ", ".join(f"{near.name} ({near.cosine:.2f})" for near in names)


def _prompts(table: Table) -> list[Block]:
    return [
        Heading("What the class prompts mean"),
        Paragraph(
            "Each cluster of masks has one learnable prompt. These are the class names whose text "
            f"embeddings are nearest to it, and the number of masks that it gets in "
            f"{_BATCHES_CLUSTERED} batches of training scenes. No name took part in the training."
        ),
        table,
    ]


def _training(cfg: CfgNode, entries: Sequence[Mapping[str, float]]) -> list[Block]:
    solver = cfg.SOLVER
    skipped = int(entries[-1].get("skipped_records", 0))
    return [
        Heading("Training"),
        Paragraph(
            f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} scenes with "
            f"{cfg.MODEL.PIXELCLIP.NUM_CLUSTERS} class prompts on the dense path "
            f'"{cfg.MODEL.CLIP.DENSE_PATH}", seed {cfg.SEED}; '
            f"{skipped} broken records were skipped."
        ),
        Figure("pictures/training.png", "The loss, and how the masks of a batch share the prompts"),
    ]


def _times(seconds: Mapping[str, float]) -> list[Block]:
    # The report itself is still being written.
    rows: list[list[str | float]] = [
        [stage, f"{value:.0f}"] for stage, value in seconds.items() if stage != "report"
    ]
    rows.append(["together", f"{sum(float(str(row[1])) for row in rows):.0f}"])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return [
        Heading("Time"),
        Table(["stage", "seconds"], rows, strong=(len(rows) - 1,)),
        Paragraph(
            f"On {device} ({platform.machine()}, {torch.get_num_threads()} threads), Python "
            f"{platform.python_version()}, torch {torch.__version__}."
        ),
    ]


def draw_scenes(cfg: CfgNode, evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw the first test scenes, their masks and labels, and what each model makes of them."""
    mapper = DatasetMapper(cfg, is_train=False)
    rows = []
    for record in DatasetCatalog.get(TOY_SCENES_TEST.name)[:_SCENES_SHOWN]:
        inputs = mapper(record)
        predictions = [
            evaluation.model.eval().segment_labels([inputs])[0].cpu().numpy()
            for evaluation in evaluations
        ]
        rows.append(_picture_row(record, predictions))
    titles = ["picture", "masks", "ground truth", *map(_short_title, evaluations)]
    colours = class_colours(len(CLASS_NAMES)).tolist()
    legend = dict(zip(CLASS_NAMES, colours, strict=True))
    save_figure(draw_picture_grid(rows, titles, legend), path)


def _picture_row(
    record: Mapping[str, str], predictions: Sequence[NDArray[np.integer]]
) -> list[Picture]:
    colours = class_colours(len(CLASS_NAMES))
    picture = np.array(Image.open(record["file_name"]).convert("RGB"))
    truth = np.array(Image.open(record["sem_seg_file_name"]))
    masks = _masks_of_test_scene(Path(record["file_name"]))
    labels = [colour_labels(labels, colours) for labels in (truth, *predictions)]
    return [picture, overlay_masks(picture, masks), *labels]


def _masks_of_test_scene(image: Path) -> NDArray[np.bool_]:
    """Masks (N, H, W) such as a training scene has; test scenes have none on disk."""
    seed = next(s.seed for s in SPLITS if image.parts[-3] == s.name)
    index = int(image.stem)
    return np.stack(make_masks(seed, index, make_scene(seed, index)))


def _title(evaluation: Evaluation) -> str:
    return DENSE_PATHS_BEFORE.get(evaluation.name, _AFTER)[0]


def _short_title(evaluation: Evaluation) -> str:
    return DENSE_PATHS_BEFORE.get(evaluation.name, _AFTER)[1]
