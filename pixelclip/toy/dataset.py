"""The embedded world's scenes: masks to train on, and labelled ones to choose and to report by."""

from functools import partial

from detectron2.data import DatasetCatalog

from pixelclip.data.datasets.sem_seg_benchmark import (
    SemSegBenchmark,
    datasets_root,
    format_command,
)
from pixelclip.data.sa1b import SA1BRecords, load_sa1b
from pixelclip.toy.scene_files import FOLDER, SPLITS

_PREPARE_TEMPLATE = "python datasets/prepare_toy_scenes.py --root {root}"
# Name of a training set -> its folder, and the command that fills it.
_TRAINING_SETS = {
    "toy_scenes_masks_train": ("train", _PREPARE_TEMPLATE),
    "toy_scenes_clip_masks_train": ("clip_masks", "python tools/reproduce_ablations.py"),
}

TOY_SCENES_VAL, TOY_SCENES_TEST = (
    SemSegBenchmark(
        name=f"{FOLDER}_{split.name}",
        vocabulary="toy_scenes_20",
        num_images=(split.count,),
        image_folder=f"{FOLDER}/{split.name}/images",
        label_folder=f"{FOLDER}/{split.name}/labels",
        prepare_template=_PREPARE_TEMPLATE,
        has_prepared_images=True,
    )
    for split in SPLITS
    if split.has_labels
)


def register_toy_scenes_masks() -> None:
    """Register the training scenes, photographs with unlabelled masks, with Detectron2.

    ``toy_scenes_masks_train`` has masks as SAM makes them, ``toy_scenes_clip_masks_train`` the same
    scenes with masks out of the tiny CLIP's features.
    """
    for name in _TRAINING_SETS:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(load_toy_scenes_masks, name))


def load_toy_scenes_masks(name: str) -> SA1BRecords:
    """Index the training scenes of a data set below the root of the data sets.

    Raises:
        FileNotFoundError: they have not been drawn; the text names the command.
    """
    folder_name, template = _TRAINING_SETS[name]
    folder = datasets_root() / FOLDER / folder_name
    if not folder.is_dir():
        command = format_command(template, datasets_root())
        raise FileNotFoundError(f"{folder} does not exist; draw the scenes first: {command}")
    return load_sa1b(folder)
