import pytest
import web_demo

from pixelclip.web.request import Limits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "none.yaml"], "none.yaml"),
        (["--weights", "none.pth"], "none.pth"),
        (["--opts", "MODEL.NONE", "1"], "MODEL.NONE"),
    ],
)
def test_mistakes_are_said(arguments, message, capsys):
    assert web_demo.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_limits_and_address_are_passed_on(monkeypatch, capsys):
    served = []

    def serve(models, limits, host, port, note):
        served.append((models.seconds, limits, host, port, "tiny CLIP" in note))
        raise OSError("the port is taken")

    monkeypatch.setattr(web_demo, "serve", serve)
    arguments = ["--max-words", "3", "--max-seconds", "1.5", "--port", "8000"]
    assert web_demo.main(arguments) == 1
    assert served == [(1.5, Limits(words=3, seconds=1.5), "127.0.0.1", 8000, True)]
    assert capsys.readouterr().err == "error: the port is taken\n"
