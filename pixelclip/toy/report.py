"""The demo's report: metrics, figures and what the class prompts have come to mean."""

import base64
import os
import platform
import re
import shlex
import sys
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

from pixelclip.analysis.baselines import BASELINE_NAMES
from pixelclip.analysis.prompts import count_masks_of_prompts, find_nearest_names
from pixelclip.engine import Trainer
from pixelclip.meta_arch import PixelCLIP
from pixelclip.toy.datasets import SPLITS
from pixelclip.toy.objects import THING_NAMES
from pixelclip.toy.scenes import CLASS_NAMES, make_masks, make_scene
from pixelclip.toy.textures import STUFF_NAMES
from pixelclip.utils import visualization
from pixelclip.utils.atomic_write import write_text

TEST_SET = "toy_scenes_test"
AFTER, PLUS, PLUS_MASKS = "after", "plus", "plus_masks"
# Dense paths of the pretrained CLIP, and trained models, with their names in the report.
BASELINES = {path: BASELINE_NAMES[path] for path in ("plain", "maskclip", "naclip")}
METHODS = {
    **BASELINES,
    AFTER: "PixelCLIP",
    PLUS: "PixelCLIP plus",
    PLUS_MASKS: "plus with masks",
}

_SCENES_SHOWN = 3
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
        evaluations: of all methods, in their order.
    """
    baselines, (after, _, with_masks) = evaluations[: len(BASELINES)], evaluations[len(BASELINES) :]
    best = max(baselines, key=lambda evaluation: evaluation.metrics["mIoU"])
    (output / "figures").mkdir(exist_ok=True)
    shown = [one for one in evaluations if one in (evaluations[0], best, after, with_masks)]
    draw_scenes(cfg, shown, output / "figures" / "scenes.png")
    entries = visualization.read_iteration_log(output / "training" / "iterations.jsonl")
    curve = visualization.draw_training_curve(entries)
    visualization.save_figure(curve, output / "figures" / "training.png")
    times = {**seconds, "total": sum(seconds.values())}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    write_report(
        output,
        cfg=cfg,
        num_scenes=len(DatasetCatalog.get(TEST_SET)),
        best_method=METHODS[best.method],
        results=_result_table(evaluations),
        meaning=describe_gain({METHODS[e.method]: e.metrics["mIoU"] for e in (*baselines, after)}),
        classes=_class_table(evaluations, best),
        prompts=_prompt_table(cfg, after.model),
        num_batches=_BATCHES_CLUSTERED,
        num_skipped=int(entries[-1].get("skipped_records", 0)),
        times=tabulate(times.items(), ["stage", "seconds"], "pipe", floatfmt=".0f"),
        device=device,
        platform=platform,
        torch=torch,
        steps=next_steps(output),
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


def describe_gain(mean_ious: Mapping[str, float]) -> str:
    """One sentence that compares PixelCLIP with the best baseline and with CLIP.

    Args:
        mean_ious: in percent by the name of the method, PixelCLIP's last.
    """
    # From the rounded values, so that subtracting those of the table gives the same.
    rounded = {name: round(value, 1) for name, value in mean_ious.items()}
    ours, after = rounded.popitem()
    best = max(rounded, key=lambda name: rounded[name])
    parts = [f"{_compare(after, rounded[best])} {best}, the best training-free baseline"]
    if best != "CLIP":
        parts.append(f"{_compare(after, rounded['CLIP'])} CLIP")
    return f"Trained with masks and without labels, {ours} is {', and '.join(parts)}."


def _compare(value: float, reference: float) -> str:
    word = "better" if value >= reference else "worse"
    return f"{abs(value - reference):.1f} points {word} than"


def next_steps(output: Path) -> dict[str, str]:
    """Commands that continue from a finished demo, by what they do."""
    root = os.environ.get("DETECTRON2_DATASETS") or str(output / "datasets")
    weights = shlex.quote(str(output / "training" / "model_final.pth"))
    return {
        **_activation(),
        "Try your own words on toy scenes, in a browser": f"pixelclip web --weights {weights}",
        "Segment an image of yours with the published weights": (
            'pixelclip predict photo.jpg --words "sky, tree, road"'
        ),
        "Train again with other settings, here 48 class prompts": (
            f"DETECTRON2_DATASETS={shlex.quote(root)} pixelclip train "
            "--config-file configs/demo/toy.yaml --output output/48_clusters "
            "--opts MODEL.PIXELCLIP.NUM_CLUSTERS 48"
        ),
    }


def _activation() -> dict[str, str]:
    """How to get the command ``pixelclip`` into the path, if it is not there."""
    script = Path(sys.prefix) / "bin" / "activate"
    is_active = str(script.parent) in os.environ.get("PATH", "").split(os.pathsep)
    if is_active or not script.exists():
        return {}
    shown = os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)
    return {"Activate the environment, once in a terminal": f"source {shlex.quote(shown)}"}


def describe_demo(report: Path) -> str:
    """What a finished demo ends with in the terminal: its results, the report and what is next.

    Args:
        report: path of ``report.html``.
    """
    # The results are what report.md begins with, below its title.
    opening = report.with_suffix(".md").read_text(encoding="utf-8").split("\n## ")[0]
    _, results = opening.split("\n", 1)
    steps = [f"{purpose}:\n  {command}" for purpose, command in next_steps(report.parent).items()]
    found = f"The report is {report} (as text: {report.with_suffix('.md').name})."
    return "\n\n".join([results.strip(), found, *steps])


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
        gain = ious[list(METHODS).index(AFTER)] - best.metrics[f"IoU-{name}"]
        kind = "stuff" if name in STUFF_NAMES else "thing"
        rows.append([name, kind, *ious, gain])
    headings = ["IoU in percent", "kind", *METHODS.values(), "gain of PixelCLIP"]
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
    """Draw the first test scenes, their masks, labels and the predictions of each model."""
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
    titles = ["image", "masks", "ground truth", *(METHODS[one.method] for one in evaluations)]
    legend = dict(zip(CLASS_NAMES, colors.tolist(), strict=True))
    figure = visualization.draw_image_grid(rows, titles, legend, cell_width=1.5)
    visualization.save_figure(figure, path)
