"""What `import pixelclip` registers for the applications, without importing them."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.toy.scenes import CLASS_NAMES


def test_the_vocabulary_is_that_of_the_scenes():
    assert get_vocabulary("toy_scenes_20") == CLASS_NAMES
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 20
    assert MetadataCatalog.get("toy_scenes_test").vocabulary == "toy_scenes_20"


@pytest.mark.parametrize("name", ["toy_scenes_masks_train", "toy_scenes_clip_masks_train"])
def test_training_sets_load_when_they_are_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert name in DatasetCatalog.list()
    with pytest.raises(FileNotFoundError, match="draw the scenes first"):
        DatasetCatalog.get(name)
