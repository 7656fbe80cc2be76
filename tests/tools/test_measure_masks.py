import measure_masks
import numpy as np
from cli import run

from tests.data.sa1b_files import annotation_bytes, image_bytes
from tests.mask_generation.drawings import draw_regions


def test_it_prints_the_numbers(tmp_path, capsys):
    image, masks = draw_regions(60, 80)
    (tmp_path / "a.png").write_bytes(image_bytes(image, "PNG"))
    (tmp_path / "a.json").write_bytes(annotation_bytes(masks.astype(np.uint8)))
    assert measure_masks.main(["--reference", str(tmp_path), "--workers", "1"]) == 0
    assert "4 regions of 1 images (0 could not be read)" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path, capsys):
    assert run(measure_masks.main, ["--reference", str(tmp_path / "nowhere")]) == 1
    assert run(measure_masks.main, ["--reference", str(tmp_path), "--generator", "sma"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "nowhere is not a folder" in first
    assert "'sma' is unknown" in second
