"""What a message advises can be run where it is printed."""

from pathlib import Path

import pytest

from pixelclip.utils import command_names
from pixelclip.utils.command_names import runnable_command

COMMAND = "python datasets/prepare_voc.py --root '/data/a b'"


def test_in_a_checkout_it_is_the_script():
    assert runnable_command(COMMAND) == COMMAND


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (COMMAND, "pixelclip-prepare-voc --root '/data/a b'"),
        ("X=1 .venv/bin/python tools/train_net.py --resume", "X=1 pixelclip-train-net --resume"),
        (
            "csCreateTrainIdLabelImgs && python tools/check_datasets.py",
            "csCreateTrainIdLabelImgs && pixelclip-check-datasets",
        ),
        ("export CITYSCAPES_DATASET=/a", "export CITYSCAPES_DATASET=/a"),
    ],
)
def test_in_an_installed_package_it_is_a_console_command(command, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(command_names, "_ROOT", Path(tmp_path))
    assert runnable_command(command) == expected
