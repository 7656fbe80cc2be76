"""The demo's report: metrics, figures and what the class prompts have come to mean."""

import base64
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markdown
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from pixelclip.analysis.prompts import count_masks_of_prompts, find_nearest_names
from pixelclip.engine import Trainer
from pixelclip.meta_arch import PixelCLIP
from pixelclip.toy.datasets import SPLITS
from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.scenes import CLASS_NAMES, make_masks, make_scene
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.utils import visualization
from pixelclip.utils.atomic_write import write_text
from pixelclip.utils.installation import runnable_command

TEST_SET = "toy_scenes_test"
AFTER = "after"
# Dense paths of the untrained CLIP, and the trained model, with their names in the report.
METHODS = {
    "plain": "CLIP", "maskclip": "MaskCLIP", "naclip": "NACLIP",
    "pixelclip": "PixelCLIP, untrained", AFTER: "PixelCLIP (ours)",
}  # fmt: skip

_SCENES_SHOWN = 4
_BATCHES_CLUSTERED = 25


class Evaluation(NamedTuple):
    """A model, its method (key of ``METHODS``), its metrics on the test scenes in percent."""

    method: str
    metrics: Mapping[str, float]
    model: PixelCLIP

    def mean_iou(self, class_names: Sequence[str]) -> float:
        """Mean IoU in percent of those of some classes that occur."""
        return float(np.nanmean([self.metrics[f"IoU-{name}"] for name in class_names]))


def write_demo_report(
    cfg: CfgNode, output: Path, seconds: Mapping[str, float], evaluations: Sequence[Evaluation]
) -> None:
    """Write ``report.md``, ``figures/``, and ``report.html``, which holds its figures.

    Args:
        cfg: the demo's config.
        output: folder of the demo; its training lies in ``training/``.
        seconds: duration of each stage.
        evaluations: those before the training, then the one after it.
    """
    (output / "figures").mkdir(exist_ok=True)
    draw_scenes(cfg, evaluations, output / "figures" / "scenes.png")
    entries = visualization.read_iteration_log(output / "training" / "iterations.jsonl")
    curve = visualization.draw_training_curve(entries)
    visualization.save_figure(curve, output / "figures" / "training.png")
    best = max(evaluations[:-1], key=lambda evaluation: evaluation.metrics["mIoU"])
    times = {**seconds, "total": sum(seconds.values())}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    write_report(
        output,
        cfg=cfg,
        num_scenes=len(DatasetCatalog.get(TEST_SET)),
        best=best.metrics["mIoU"],
        best_method=METHODS[best.method],
        after=evaluations[-1].metrics["mIoU"],
        results=_result_table(evaluations),
        classes=_class_table(evaluations, best),
        prompts=_prompt_table(cfg, evaluations[-1].model),
        num_batches=_BATCHES_CLUSTERED,
        num_skipped=int(entries[-1].get("skipped_records", 0)),
        times=tabulate(times.items(), ["stage", "seconds"], "pipe", floatfmt=".0f"),
        device=device,
        platform=platform,
        torch=torch,
        commands=next_commands(output),
    )


def write_report(folder: Path, **values: Any) -> None:
    """Fill ``assets/report.md.jinja`` with values, and write it as Markdown and as HTML."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "assets")
    templates = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = templates.get_template("report.md.jinja").render(values)

    def inline(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="(.*?)"', inline, markdown.markdown(text, extensions=["tables"]))
    title = text.splitlines()[0].removeprefix("# ")
    page = templates.get_template("report.html.jinja").render(title=title, body=body)
    for name, content in (("report.md", text), ("report.html", page)):
        write_text(folder / name, content)


def next_commands(output: Path) -> list[str]:
    """Three commands that continue from a finished demo."""
    train = runnable_command(".venv/bin/python tools/train_net.py --config-file")
    root = os.environ.get("DETECTRON2_DATASETS") or str(output / "datasets")
    toy = f"DETECTRON2_DATASETS={shlex.quote(root)} {train} configs/demo/toy.yaml"
    weights = shlex.quote(str(output / "training" / "model_final.pth"))
    return [
        f"{toy} MODEL.PIXELCLIP.NUM_CLUSTERS 48 OUTPUT_DIR output/48_clusters",
        f"{toy} --eval-only MODEL.WEIGHTS {weights} TEST.FLIP True OUTPUT_DIR output/flipped",
        f"{train} configs/pixelclip_vitb16.yaml --num-gpus 8",
    ]


def _result_table(evaluations: Sequence[Evaluation]) -> str:
    rows = [
        [METHODS[e.method], e.metrics["mIoU"], e.mean_iou(STUFF_NAMES), e.mean_iou(THING_NAMES)]
        for e in evaluations
    ]
    groups = f"{len(STUFF_NAMES)} stuff", f"{len(THING_NAMES)} things"
    return tabulate(rows, ["mean IoU in percent", "all", *groups], "pipe", floatfmt=".1f")


def _class_table(evaluations: Sequence[Evaluation], best: Evaluation) -> str:
    rows = []
    for name in CLASS_NAMES:
        ious = [evaluation.metrics[f"IoU-{name}"] for evaluation in evaluations]
        gain = ious[-1] - best.metrics[f"IoU-{name}"]
        kind = "stuff" if name in STUFF_NAMES else "thing"
        rows.append([name, kind, *ious, gain])
    headings = ["IoU in percent", "kind", *METHODS.values(), "gain"]
    formats = ["", "", *[".1f"] * len(evaluations), "+.1f"]
    return tabulate(rows, headings, "pipe", floatfmt=formats)


def _prompt_table(cfg: CfgNode, model: PixelCLIP) -> str:
    """Class prompts, those with most masks first."""
    loader = iter(Trainer.build_train_loader(cfg, seed=cfg.SEED))
    batches = (next(loader) for _ in tqdm(range(_BATCHES_CLUSTERED), "report", unit="batch"))
    counts = count_masks_of_prompts(model, batches).tolist()
    rows = []
    for prompt, nearest in enumerate(find_nearest_names(model, CLASS_NAMES)):
        names = ", ".join(f"{near.name} ({near.cosine:.2f})" for near in nearest)
        rows.append([names, prompt, counts[prompt]])
    rows.sort(key=lambda row: -row[2])
    return tabulate(rows, ["nearest class names (cosine)", "class prompt", "masks"], "pipe")


def draw_scenes(cfg: CfgNode, evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw the first test scenes, their masks and labels, and the predictions of each model."""
    mapper = DatasetMapper(cfg, is_train=False)
    colors = visualization.class_colors(CLASS_NAMES)
    seed = next(split.seed for split in SPLITS if split.name == "test")
    rows = []
    for record in DatasetCatalog.get(TEST_SET)[:_SCENES_SHOWN]:
        image = np.array(Image.open(record["file_name"]).convert("RGB"))
        # Test scenes have no masks on disk; these are such as a training scene has.
        index = int(Path(record["file_name"]).stem)
        masks = np.stack(make_masks(seed, index, make_scene(seed, index)))  # (N, H, W)
        label_maps = [np.array(Image.open(record["sem_seg_file_name"]))]
        for evaluation in evaluations:
            (labels,) = evaluation.model.eval().segment_labels([mapper(record)])
            label_maps.append(labels.cpu().numpy())
        colored = [visualization.color_labels(labels, colors) for labels in label_maps]
        rows.append([image, visualization.overlay_masks(image, masks), *colored])
    titles = ["image", "masks", "ground truth", *METHODS.values()]
    legend = dict(zip(CLASS_NAMES, colors.tolist(), strict=True))
    visualization.save_figure(visualization.draw_image_grid(rows, titles, legend), path)
