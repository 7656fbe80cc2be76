"""The embedded world's scenes: masks to train on, and labelled ones to choose and to report by."""

from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    format_command,
)
from pixelclip.data.sa1b import SA1BRecords, load_sa1b
from pixelclip.toy.scene_files import FOLDER, SPLITS

TRAINING_SET = "toy_scenes_masks_train"
_PREPARE_TEMPLATE = "python datasets/prepare_toy_scenes.py --root {root}"

TOY_SCENES_VAL, TOY_SCENES_TEST = (
    SemSegBenchmark(
        name=f"{FOLDER}_{split.name}",
        vocabulary="toy_scenes_20",
        num_images=(split.count,),
        image_folder=f"{FOLDER}/{split.name}/images",
        label_folder=f"{FOLDER}/{split.name}/labels",
        prepare_template=_PREPARE_TEMPLATE,
    )
    for split in SPLITS
    if split.has_labels
)


def register_toy_scenes_masks() -> None:
    """Register the training scenes, photographs with unlabelled masks, with Detectron2."""
    if TRAINING_SET not in DatasetCatalog:
        DatasetCatalog.register(TRAINING_SET, load_toy_scenes_masks)


def load_toy_scenes_masks() -> SA1BRecords:
    """Index the training scenes below the root of the data sets.

    Raises:
        FileNotFoundError: they have not been drawn; the text names the command.
    """
    folder = datasets_root() / FOLDER / "train"
    if not folder.is_dir():
        command = format_command(_PREPARE_TEMPLATE, datasets_root())
        raise FileNotFoundError(f"{folder} does not exist; draw the scenes first: {command}")
    return load_sa1b(folder)
