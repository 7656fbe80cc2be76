"""The mask generators by name."""

import importlib.util
from dataclasses import dataclass

import torch

from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.modeling.dino_features import PRETRAINED, check_dino

# Each generator's model where none is named; "" for those that have none.
DEFAULT_MODELS = {
    "superpixels": "",
    "sam": "facebook/sam-vit-huge",
    "sam_hq": "syscv-community/sam-hq-vit-huge",
    "sam2": "facebook/sam2.1-hiera-large",
    "dino": "vit_small_patch16_224.dino",
    "dinov2": "vit_small_patch14_dinov2.lvd142m",
}
_SEGMENT_ANYTHING = ("sam", "sam_hq", "sam2")
_DINO = ("dino", "dinov2")


@dataclass(frozen=True)
class GeneratorChoice:
    """A mask generator that is not built yet.

    Args:
        name: one of ``DEFAULT_MODELS``.
        model: "" for the generator's default. For SAM, SAM-HQ and SAM 2, a name on Hugging Face's
            hub or a folder; for DINO and DINOv2, a name of timm's.
        weights: for DINO and DINOv2, a file with the model's weights; "" for those that timm
            downloads once.
        num_clusters: into how many regions DINO and DINOv2 divide a photograph.

    Raises:
        ValueError: an unknown name, no cluster, a model or weights for a generator that takes none,
            or weights that are no file.
        ModuleNotFoundError: the generator's package is not installed.
    """

    name: str = "superpixels"
    model: str = ""
    weights: str = ""
    num_clusters: int = 16

    def __post_init__(self) -> None:
        if self.name not in DEFAULT_MODELS:
            raise ValueError(
                f"The mask generator {self.name!r} is unknown; choose one of "
                f"{', '.join(DEFAULT_MODELS)}."
            )
        if self.num_clusters < 1:
            raise ValueError(f"{self.num_clusters} clusters were asked for; expected at least 1.")
        if self.model and not self.has_network:
            raise ValueError(f"{self.name} need no model; got {self.model!r}. Leave it out.")
        if self.name in _SEGMENT_ANYTHING and not importlib.util.find_spec("transformers"):
            raise ModuleNotFoundError(
                f"The mask generator {self.name} needs the package transformers: "
                'pip install -e ".[masks]"'
            )
        self._check_weights()

    def _check_weights(self) -> None:
        if self.weights and self.name not in _DINO:
            raise ValueError(
                f"{self.name} takes no weights file; got {self.weights!r}. SAM, SAM-HQ and SAM 2 "
                "are named by their model alone."
            )
        if self.name in _DINO:
            check_dino(self._model, self.weights or PRETRAINED)

    @property
    def _model(self) -> str:
        return self.model or DEFAULT_MODELS[self.name]

    @property
    def has_network(self) -> bool:
        """Whether it computes on a GPU where there is one."""
        return bool(DEFAULT_MODELS[self.name])

    def build(self, device: torch.device) -> MaskGenerator:
        """Load what the generator needs; ``device`` is where its network computes, if it has one.

        Raises:
            ValueError, RuntimeError: the model cannot be loaded.
        """
        # Imported only where it is used: scikit-image and transformers take seconds.
        if self.name in _SEGMENT_ANYTHING:
            from pixelclip.mask_generation.segment_anything import SegmentAnythingGenerator

            return SegmentAnythingGenerator(self._model, device)
        if self.name in _DINO:
            from pixelclip.mask_generation.dino import DinoGenerator

            return DinoGenerator(self._model, device, self.weights or PRETRAINED, self.num_clusters)
        from pixelclip.mask_generation.superpixels import SuperpixelGenerator

        return SuperpixelGenerator()
