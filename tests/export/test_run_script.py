"""The script of docs/export.md, which runs an exported file without PixelCLIP."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pixelclip import Predictor
from pixelclip.toy.scenes import make_scene
from tests.export.conftest import ROOT, TOY_NAMES

APPENDED = """
import sys
assert not {"torch", "pixelclip", "detectron2"} & set(sys.modules)
np.save("labels.npy", labels)
"""


def read_script():
    page = (ROOT / "docs" / "export.md").read_text()
    return re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(96, 96), (300, 200)])
def test_the_documented_script_gives_the_predictors_labels(
    toy_classifier, toy_model, tmp_path, size
):
    (tmp_path / "output").mkdir()
    shutil.copy(toy_classifier, tmp_path / "output" / "scenes.onnx")
    Image.fromarray(make_scene(13, 47).pixels).resize(size).save(tmp_path / "photo.jpg")
    result = subprocess.run(
        [sys.executable, "-c", read_script() + APPENDED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == list(TOY_NAMES)
    labels = np.load(tmp_path / "labels.npy")
    predictor = Predictor(toy_model, min_size=96, max_size=400)
    expected = predictor(tmp_path / "photo.jpg", list(TOY_NAMES)).labels.numpy()
    assert labels.shape == expected.shape
    assert np.mean(labels == expected) > 0.999
