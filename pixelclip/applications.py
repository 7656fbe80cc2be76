"""Registration of the applications with the core, by names and paths; none of them is imported."""

import pkgutil
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from pixelclip.checkpoint import register_model
from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark, register_sem_seg_benchmark
from pixelclip.data.vocabularies import register_vocabulary
from pixelclip.modeling.clip_loader import register_clip_architecture
from pixelclip.modeling.inference_masks import MASK_GENERATORS

_TOY_ASSETS = Path(__file__).parent / "toy" / "assets"
_TOY_CLASSES = (
    "sky", "grass", "water", "sand", "brick", "wood", "stone", "snow",
    "house", "tree", "car", "fish", "boat", "bottle", "mushroom", "ladder", "flower", "lamp", "cup",
    "bird",
)  # fmt: skip


def register_applications() -> None:
    """Register what the applications add to the core; a data set that exists stays as it is."""
    _register_mask_generators()
    _register_toy_benchmark()


def _register_mask_generators() -> None:
    package = "pixelclip.mask_generation"
    MASK_GENERATORS.update(
        superpixels=f"{package}.superpixels:SuperpixelGenerator",
        sam=f"{package}.segment_anything:SAM",
        sam_hq=f"{package}.segment_anything:SAMHQ",
        sam2=f"{package}.segment_anything:SAM2",
        mobile_sam=f"{package}.mobile_sam_generator:MobileSAM",
        mobile_sam_grid=f"{package}.mobile_sam_generator:MobileSAMGrid",
        dino=f"{package}.dino_generator:DINO",
        dinov2=f"{package}.dino_generator:DINOv2",
    )


def _register_toy_benchmark() -> None:
    weights = {"captions": str(_TOY_ASSETS / "toy_clip.safetensors")}
    note = (
        "This is the packaged tiny CLIP: it knows drawn toy scenes and few words. Its results on "
        "real images mean nothing."
    )
    register_clip_architecture("toy", str(_TOY_ASSETS / "toy_clip.json"), weights, note)
    register_model("toy", "configs/demo/toy.yaml", "")
    register_vocabulary("toy_scenes_20", _TOY_CLASSES)
    for split, count in (("val", 300), ("test", 600)):
        benchmark = SemSegBenchmark(
            name=f"toy_scenes_{split}",
            vocabulary="toy_scenes_20",
            num_images=(count,),
            image_folder=f"toy_scenes/{split}/images",
            label_folder=f"toy_scenes/{split}/labels",
            prepare_template="pixelclip datasets prepare toy_scenes --root {root}",
        )
        register_sem_seg_benchmark(benchmark)
    for name in ("toy_scenes_masks_train", "toy_scenes_clip_masks_train"):
        if name not in DatasetCatalog:
            load = partial(_call, "pixelclip.toy.datasets:load_toy_scenes_masks", name)
            DatasetCatalog.register(name, load)


def _call(function: str, *arguments: Any) -> Any:
    """Import a function, given as "module:name", and call it."""
    return pkgutil.resolve_name(function)(*arguments)
