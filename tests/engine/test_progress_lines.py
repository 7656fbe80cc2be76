from detectron2.utils.events import EventStorage

from pixelclip.engine.progress_lines import ProgressLines


def lines_of(caplog, start=0, stop=3, repeat=1, max_iter=4, **scalars):
    caplog.set_level("INFO", logger="pixelclip")
    writer = ProgressLines(max_iter)
    with EventStorage(start) as storage:
        for iteration in range(start, stop):
            storage.iter = iteration
            for name, value in scalars.items():
                storage.put_scalar(name.replace("__", "/"), value)
            for _ in range(repeat):
                writer.write()
    return caplog.messages


def test_a_line_says_how_far_how_good_how_long_and_whose_learning_rate(caplog):
    scalars = {"total_loss": 0.5, "clusters__largest": 0.25, "time": 2.0, "data_time": 0.5}
    [line] = lines_of(caplog, stop=1, **scalars, lr=1e-4)
    assert line.startswith("eta: 0:00:06  iteration: 1/4  loss: 0.5  largest cluster: 25% of masks")
    assert "time: 2.0000 s  data_time: 0.5000 s  lr of the mask decoder: 0.0001" in line


def test_what_is_not_known_is_left_out(caplog):
    [line] = lines_of(caplog, stop=1)
    assert line.split("  ")[0] == "iteration: 1/4"


def test_an_iteration_has_one_line_and_the_end_none(caplog):
    lines = lines_of(caplog, start=2, stop=6, repeat=2)
    assert len(lines) == 2 and "4/4" in lines[1]
