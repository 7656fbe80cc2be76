import pretrain_toy_clip

from pixelclip.toy.pretraining import PretrainingSettings


def test_the_defaults_are_those_of_the_settings():
    options = vars(pretrain_toy_clip.build_parser().parse_args([]))
    del options["output"], options["processes"]
    assert options == vars(PretrainingSettings())
