"""The model zoo: models by name, each with its config and the address of its weights."""

from dataclasses import dataclass

SCHEME = "pixelclip://"
# What the authors of the paper published: name -> file in this folder.
_RELEASE = "hf://hsshin98/PixelCLIP/weights"
_PUBLISHED = {
    "pixelclip_vitb16": "pixelclip_vit_base.pth",
    "pixelclip_vitb16_dino": "pixelclip_vit_base_dino.pth",
    "pixelclip_convnextb": "pixelclip_convnext_base.pth",
    "pixelclip_convnextb_dino": "pixelclip_convnext_base_dino.pth",
}


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo.

    Attributes:
        name: under which it is asked for.
        config_file: one of PixelCLIP's own, see :func:`pixelclip.utils.installation.find_config`.
        address: of the weights, see :func:`pixelclip.checkpoint.weights_download.fetch_weights`;
            "" where the config itself names all weights.
    """

    name: str
    config_file: str
    address: str


_MODELS = {
    name: ZooModel(name, f"configs/{name}.yaml", f"{_RELEASE}/{file}")
    for name, file in _PUBLISHED.items()
}


def register_model(name: str, config_file: str, address: str) -> None:
    """Add a model to the zoo; the arguments are the attributes of :class:`ZooModel`."""
    _MODELS[name] = ZooModel(name, config_file, address)


def list_models() -> tuple[str, ...]:
    """Names of all models of the zoo."""
    return tuple(_MODELS)


def get_model(name: str) -> ZooModel:
    """The model of a name, which may begin with ``pixelclip://``.

    Raises:
        ValueError: the zoo has none of that name; it lists the names.
    """
    name = name.removeprefix(SCHEME)
    if name not in _MODELS:
        raise ValueError(f"The model zoo has no {name!r}; it has {', '.join(_MODELS)}.")
    return _MODELS[name]
