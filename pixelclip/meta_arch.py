"""PixelCLIP as a Detectron2 meta-architecture.

Shapes: B images, N masks in the batch, K clusters, mask resolution (Mh, Mw), C classes, feature
grid h x w, d the width of CLIP's joint embedding space.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.config_check import check_choice, check_model_config
from pixelclip.data.vocabularies import validate_class_names
from pixelclip.modeling.background import Background
from pixelclip.modeling.clip_loader import load_clip, load_tokenizer
from pixelclip.modeling.cluster_embeddings import build_cluster_embeddings
from pixelclip.modeling.dino_masks import DinoMasks
from pixelclip.modeling.finetune_policy import apply_finetune_policy
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.modeling.inference_masks import InferenceMasks, build_inference_masks
from pixelclip.modeling.inference_views import (
    InferenceMode,
    ScoredImage,
    Size,
    View,
    batch_by_size,
    label_views,
    make_views,
    merge_views,
)
from pixelclip.modeling.losses import count_pixels, decoded_mask_loss
from pixelclip.modeling.mask_decoder import MaskDecoder
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.momentum_teacher import MomentumTeacher
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.sinkhorn import sinkhorn
from pixelclip.modeling.targets import MaskTargets, cover_images, merge_masks
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.modeling.text_encoder import TextEncoder
from pixelclip.modeling.training_masks import gather_training_masks
from pixelclip.modeling.training_statistics import assignment_entropy, feature_agreement
from pixelclip.utils.distributed import RowExchange

Losses = dict[str, Tensor]

ASSIGNMENTS = ("sinkhorn", "argmax", "none")

# More views at a time would need more memory without being faster.
_VIEWS_PER_BATCH = 16
# Text features of so many vocabularies are kept: a training evaluates on the same few data sets
# again and again.
_VOCABULARIES_KEPT = 16


@META_ARCH_REGISTRY.register()
class PixelCLIP(nn.Module):
    """CLIP fine-tuned with unlabelled masks to segment any vocabulary.

    In training mode, ``model(batched_inputs)`` returns ``{"loss_masks": scalar}``; each input is a
    dict with

    * ``image``, ``image_strong``: (3, H, W) RGB in 0..255, weakly and strongly augmented;
    * ``masks``: (N, Mh, Mw) bool at the mask resolution, or ``instances`` whose ``gt_masks`` are
      Detectron2 ``BitMasks`` at image resolution; with ``dino_masks`` none of both, but optionally
      what that class takes.

    In eval mode it returns ``[{"sem_seg": (C, height, width) float32 cosines}]``; each input is a
    dict with ``image`` and the ``height`` and ``width`` of the output in pixels (by default the
    image's own); with ``MODEL.PIXELCLIP.TEST_MASKS "given"`` also the ``masks`` and ``owner`` of
    ``SmoothingMasks``. The classes are those of :meth:`set_vocabulary`, or of the first test data
    set.

    Args:
        image_encoder: the student.
        text_encoder: frozen.
        class_prompts: K prompts, or what stands in for them; see ``cluster_embeddings.py``.
        teacher: momentum average of the image encoder.
        mask_decoder: used in training only.
        pixel_mean, pixel_std: three values each, for RGB in 0..255.
        clip_resolution: (height, width) to which images are resized.
        mask_resolution: (Mh, Mw).
        assignment: "sinkhorn", "argmax" or "none"; see ``config.py``.
        assignment_scale: factor on cosines before Sinkhorn.
        sinkhorn_iterations: number of Sinkhorn rounds.
        test_templates: name of the prompt template set of :meth:`set_vocabulary`'s default.
        test_feature_size: (height, width) on which classes are compared at inference.
        inference_mode: which views of a test image are scored.
        background: what counts as a vocabulary's background class.
        default_dataset: data set whose classes are used until :meth:`set_vocabulary` is called.
        dino_masks: makes the masks of training images, which then need none; not a part of the
            model's parameters and checkpoints.
        inference_masks: gives the masks of a test image inside which similarity is averaged; None
            for no masks.
        compile_modules: compile the image encoders and the decoder with ``torch.compile``.

    Raises:
        ValueError: a resolution is not a multiple of the image encoder's stride, or an unknown
            assignment or template set.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    _text_classifier: Tensor | None
    # Until a vocabulary is set.
    class_names: tuple[str, ...] = ()
    _background_index: int | None = None
    _segments_clusters = False

    @configurable
    def __init__(
        self,
        *,
        image_encoder: DenseImageEncoder,
        text_encoder: TextEncoder,
        class_prompts: nn.Module,
        teacher: MomentumTeacher,
        mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        clip_resolution: Size,
        mask_resolution: Size,
        assignment: str,
        assignment_scale: float,
        sinkhorn_iterations: int,
        test_templates: str,
        test_feature_size: Size,
        inference_mode: InferenceMode,
        background: Background,
        default_dataset: str | None,
        dino_masks: DinoMasks | None = None,
        inference_masks: InferenceMasks | None = None,
        compile_modules: bool = False,
    ) -> None:
        super().__init__()
        _check_resolution(clip_resolution, image_encoder.stride)
        check_choice("MODEL.PIXELCLIP.ASSIGNMENT", assignment, ASSIGNMENTS)
        get_prompt_templates(test_templates)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        # Without clusters the prompts have no gradient, which distributed training must know.
        self.class_prompts = class_prompts.requires_grad_(assignment != "none")
        self.teacher = teacher
        self.mask_decoder = mask_decoder
        # (3, 1, 1) each
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.clip_resolution = clip_resolution
        self.mask_resolution = mask_resolution
        self.assignment = assignment
        self.assignment_scale = assignment_scale
        self.sinkhorn_iterations = sinkhorn_iterations
        self.test_templates = test_templates
        self.test_feature_size = test_feature_size
        self.inference_mode = inference_mode
        self.background = background
        self.default_dataset = default_dataset
        self.dino_masks = dino_masks
        self.inference_masks = inference_masks
        self._templates = test_templates
        self._background = background
        self.register_buffer("_text_classifier", None, persistent=False)
        # By names and templates; the latest one used stands last.
        self._text_classifiers: dict[tuple[tuple[str, ...], str], Tensor] = {}
        # The classifier belongs to the text encoder's weights: new weights, new classifier.
        self.register_load_state_dict_post_hook(_forget_text_classifier)
        self._exchange = RowExchange()
        self._register_statistics()
        if compile_modules:
            _compile_in_place(image_encoder, teacher.image_encoder, mask_decoder)

    def _register_statistics(self) -> None:
        """What the latest training batch leaves for monitoring and for the sum over parts."""
        # Masks per cluster (K,) in the latest training batch of all processes, for monitoring.
        self.register_buffer("cluster_usage", torch.zeros(0, dtype=torch.long), False)
        # See training_statistics.py; the agreement is that of this process's images.
        self.register_buffer("assignment_entropy", torch.zeros(()), False)
        self.register_buffer("teacher_agreement", torch.zeros(()), False)
        # Number of pixels, scalar int64, over which that batch's loss is the mean.
        self.register_buffer("counted_pixels", torch.zeros((), dtype=torch.long), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments of the constructor, out of a Detectron2 config."""
        check_model_config(cfg)
        is_replaced = bool(cfg.MODEL.WEIGHTS)
        clip = load_clip(cfg.MODEL.CLIP.ARCH, cfg.MODEL.CLIP.PRETRAINED, is_replaced)
        image_encoder = DenseImageEncoder(
            clip.visual, cfg.MODEL.CLIP.DENSE_PATH, cfg.MODEL.CLIP.ACTIVATION_CHECKPOINTING
        )
        text_encoder = TextEncoder(clip, load_tokenizer(cfg.MODEL.CLIP.ARCH))
        apply_finetune_policy(image_encoder, cfg.MODEL.CLIP.FINETUNE)
        node = cfg.MODEL.PIXELCLIP
        return {
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
            "class_prompts": build_cluster_embeddings(cfg, text_encoder),
            "teacher": MomentumTeacher(image_encoder, node.MOMENTUM),
            "mask_decoder": MaskDecoder(),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "clip_resolution": tuple(cfg.MODEL.CLIP.RESOLUTION),
            "mask_resolution": tuple(node.MASK_RESOLUTION),
            "assignment": node.ASSIGNMENT,
            "assignment_scale": node.ASSIGNMENT_SCALE,
            "sinkhorn_iterations": node.SINKHORN_ITERS,
            "test_templates": node.TEST_TEMPLATES,
            "test_feature_size": tuple(node.TEST_FEATURE_SIZE),
            "inference_mode": InferenceMode(
                cfg.TEST.INFERENCE_MODE,
                cfg.TEST.WINDOW_SIZE,
                cfg.TEST.WINDOW_STRIDE,
                cfg.TEST.FLIP,
            ),
            "background": Background(
                cfg.TEST.BACKGROUND_THRESHOLD, tuple(cfg.TEST.BACKGROUND_WORDS)
            ),
            "default_dataset": cfg.DATASETS.TEST[0] if len(cfg.DATASETS.TEST) else None,
            "dino_masks": _build_dino_masks(cfg),
            "inference_masks": build_inference_masks(cfg),
            "compile_modules": cfg.MODEL.COMPILE,
        }

    @property
    def device(self) -> torch.device:
        """Device on which the model computes."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Any:
        """Losses in training mode, ``sem_seg`` of every image in eval mode; see the class."""
        if self.training:
            return self.losses(batched_inputs)
        return self.inference(batched_inputs)

    def losses(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Losses:
        """Loss between the student's prediction and the targets that the teacher makes.

        The teacher is updated first. The loss is a mean over the pixels of all processes, scaled by
        their number because DistributedDataParallel averages gradients: it does not depend on how
        many processes share a batch. Without any mask it is zero, with zero gradients.

        Raises:
            ValueError: masks of another size than the mask resolution.
        """
        self.teacher.update(self.image_encoder)
        masks, image_index = self.training_masks(batched_inputs)
        weak = self.preprocess([x["image"] for x in batched_inputs])
        strong = self.preprocess([x["image_strong"] for x in batched_inputs])
        if self.assignment == "none":
            similarity, targets = self._match_masks(weak, strong, masks, image_index)
        else:
            similarity, targets = self._match_clusters(weak, strong, masks, image_index)
        mean_pixels = self.counted_pixels.clamp(min=1) / comm.get_world_size()
        return {
            "loss_masks": decoded_mask_loss(self.mask_decoder, similarity, targets, mean_pixels)
        }

    def training_masks(self, batched_inputs: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        """All masks (N, Mh, Mw) bool of a batch, and the image (N,) int64 of each, ascending.

        Raises:
            ValueError: see :func:`gather_training_masks`.
        """
        if self.dino_masks is not None:
            masks = self.dino_masks(batched_inputs, self.device)
            batched_inputs = [{"masks": of_image} for of_image in masks]
        return gather_training_masks(batched_inputs, self.mask_resolution, self.device)

    def _match_clusters(
        self, weak: Tensor, strong: Tensor, masks: Tensor, image_index: Tensor
    ) -> tuple[Tensor, MaskTargets]:
        """Similarity (B*K, h, w) of the student's features to the clusters, and its targets."""
        cluster_embeddings = self.class_prompts(self.text_encoder)  # (K, d)
        num_images, num_clusters = len(weak), len(cluster_embeddings)
        covered = cover_images(masks, image_index, num_images)
        maps_of = torch.arange(num_images, device=self.device).repeat_interleave(num_clusters)
        teacher_features = self.teacher(weak)  # (B, h, w, d)
        scores = self.score_masks(
            teacher_features, masks, image_index, cluster_embeddings.detach()
        )
        shared = self._exchange(scores, count_pixels(maps_of, covered))
        assignment = self.assign_masks(shared.rows)
        self.cluster_usage = torch.bincount(assignment, minlength=num_clusters)
        self.counted_pixels = shared.total
        own = assignment[shared.own]
        merged = merge_masks(masks, image_index, own, num_images, num_clusters).flatten(0, 1)
        student_features = self.image_encoder(strong)  # (B, h, w, d)
        self.teacher_agreement = feature_agreement(teacher_features, student_features)
        similarity = cosine_maps(student_features, cluster_embeddings)  # (B, K, h, w)
        return similarity.flatten(0, 1), MaskTargets(merged, maps_of, covered)

    def _match_masks(
        self, weak: Tensor, strong: Tensor, masks: Tensor, image_index: Tensor
    ) -> tuple[Tensor, MaskTargets]:
        """For comparison: each mask's teacher feature is to find its own mask in the student's.

        Similarity (N, h, w) of each mask's feature to the student's features, and its targets.
        """
        covered = cover_images(masks, image_index, len(weak))
        no_scores = torch.zeros(0, 1, device=self.device)
        self.counted_pixels = self._exchange(no_scores, count_pixels(image_index, covered)).total
        teacher_features, student_features = self.teacher(weak), self.image_encoder(strong)
        self.teacher_agreement = feature_agreement(teacher_features, student_features)
        mask_features = pool_masks(teacher_features, masks, image_index)  # (N, d)
        counts = torch.bincount(image_index, minlength=len(weak)).tolist()
        similarity = [
            cosine_maps(features[None], own)[0]  # (n, h, w)
            for features, own in zip(student_features, mask_features.split(counts), strict=True)
        ]
        return torch.cat(similarity), MaskTargets(masks, image_index, covered)

    @torch.no_grad()
    def score_masks(
        self, features: Tensor, masks: Tensor, image_index: Tensor, cluster_embeddings: Tensor
    ) -> Tensor:
        """Scaled cosines (N, K) float32 of mask features and clusters.

        Args:
            features: (B, h, w, d), the teacher's.
            masks: (N, Mh, Mw) bool.
            image_index: (N,) int64, ascending.
            cluster_embeddings: (K, d).
        """
        mask_features = pool_masks(features, masks, image_index)  # (N, d)
        with torch.autocast(features.device.type, enabled=False):
            cosines = cosine_similarity(mask_features, cluster_embeddings.float())  # (N, K)
            return self.assignment_scale * cosines

    def assign_masks(self, scores: Tensor) -> Tensor:
        """Cluster (N,) int64 of each of the masks, balanced over all that ``scores`` (N, K) has."""
        if self.assignment == "sinkhorn":
            scores = shares = sinkhorn(scores, self.sinkhorn_iterations)
        else:
            shares = scores.softmax(dim=1)
        self.assignment_entropy = assignment_entropy(shares)
        return scores.argmax(dim=1)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise RGB images (3, H, W) in 0..255 of any sizes and resize them to one batch."""
        resized = [
            F.interpolate(
                self._normalise(image)[None],
                self.clip_resolution,
                mode="bilinear",
                align_corners=False,
            )
            for image in images
        ]
        return torch.cat(resized)

    def _normalise(self, image: Tensor) -> Tensor:
        return (image.to(self.device, non_blocking=True).float() - self.pixel_mean) / self.pixel_std

    @torch.no_grad()
    def set_vocabulary(
        self,
        class_names: Sequence[str],
        templates: str | None = None,
        background_index: int | None = None,
        background: Background | None = None,
    ) -> None:
        """Choose the classes that the model segments from now on.

        Args:
            class_names: C names; synonyms of one class are separated by a comma and a blank.
            templates: name of a prompt template set; ``MODEL.PIXELCLIP.TEST_TEMPLATES`` by default.
            background_index: which of the classes is the background, if any.
            background: what counts as background; by default what ``TEST.BACKGROUND_THRESHOLD``
                and ``.BACKGROUND_WORDS`` say.

        Raises:
            ValueError: no name, an empty name, an unknown template set, a name too long for
                CLIP's context, or a background index that is no class's.
        """
        templates = self.test_templates if templates is None else templates
        names = tuple(validate_class_names(class_names))
        if background_index is not None and not 0 <= background_index < len(names):
            raise ValueError(
                f"background_index is {background_index}; the vocabulary has {len(names)} classes."
            )
        background = self.background if background is None else background
        embedded: Sequence[str] = names
        if background_index is not None:
            embedded = background.names(names, background_index)
        if not embedded:
            raise ValueError(
                f"The vocabulary {list(names)} has nothing but the background, which a threshold "
                "tells from other classes: add a class."
            )
        self._text_classifier = self._embed_names(tuple(embedded), templates)
        self._segments_clusters = False
        self.class_names, self._templates = names, templates
        self._background_index, self._background = background_index, background

    @torch.no_grad()
    def set_clusters_as_classes(self) -> None:
        """Segment into the clusters from now on: each class prompt is a class, whatever it means.

        :meth:`set_vocabulary` goes back to words.
        """
        clusters = self.class_prompts(self.text_encoder).float()  # (K, d)
        self._text_classifier = F.normalize(clusters, dim=-1)
        self.class_names = tuple(f"cluster {index}" for index in range(len(clusters)))
        self._background_index = None
        self._segments_clusters = True

    def _embed_names(self, names: tuple[str, ...], templates: str) -> Tensor:
        """Unit vectors (C, d) of names; those of the latest vocabularies are kept."""
        key = (names, templates)
        classifier = self._text_classifiers.pop(key, None)
        if classifier is None:
            classifier = build_text_classifier(
                self.text_encoder, names, get_prompt_templates(templates)
            )
            if len(self._text_classifiers) == _VOCABULARIES_KEPT:
                del self._text_classifiers[next(iter(self._text_classifiers))]
        self._text_classifiers[key] = classifier
        return classifier.to(self.device)

    @property
    def text_classifier(self) -> Tensor:
        """Unit vectors of the current vocabulary's classes, (C, d), or of its embedded names."""
        if self._text_classifier is None:
            if self._segments_clusters:
                self.set_clusters_as_classes()
            elif self.class_names:
                self.set_vocabulary(
                    self.class_names, self._templates, self._background_index, self._background
                )
            else:
                self.set_vocabulary(*_vocabulary_of(self.default_dataset))
        assert self._text_classifier is not None
        return self._text_classifier

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Cosines of every class at every pixel; see the class."""
        return [{"sem_seg": merge_views(*scored)} for scored in self.score_images(batched_inputs)]

    @torch.no_grad()
    def segment_labels(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """Label map (height, width) of each image, without the scores of all classes.

        Equals ``output["sem_seg"].argmax(dim=0)`` of what the model returns in eval mode for the
        same inputs, in a fraction of its memory.

        Returns:
            uint8 up to 256 classes, else int32.
        """
        labels = [label_views(*scored) for scored in self.score_images(batched_inputs)]
        dtype = torch.uint8 if len(self.class_names) <= 256 else torch.int32
        return [of_image.to(dtype) for of_image in labels]

    @torch.no_grad()
    def score_images(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[ScoredImage]:
        """Scores of the views of each image, for ``merge_views(*scored)`` and its like.

        The maps of all classes at full size are made of them, but need much more memory.
        """
        sizes = [_output_size(inputs) for inputs in batched_inputs]
        views_of_images = [
            make_views(
                self._normalise(inputs["image"]),
                size,
                self.inference_mode,
                self.clip_resolution,
                self.image_encoder.stride,
            )
            for inputs, size in zip(batched_inputs, sizes, strict=True)
        ]
        scores = iter(self._score_views([view for views in views_of_images for view in views]))
        return [
            ScoredImage(
                [view.without_pixels() for view in views],
                list(islice(scores, len(views))),
                size,
                self.inference_masks and self.inference_masks(inputs, self.device),
            )
            for inputs, views, size in zip(batched_inputs, views_of_images, sizes, strict=True)
        ]

    def _score_views(self, views: Sequence[View]) -> list[Tensor]:
        """Scores (C, test height, test width) of each view."""
        scores: dict[int, Tensor] = {}
        for indices in batch_by_size(views, _VIEWS_PER_BATCH):
            pixels = torch.stack([views[index].pixels for index in indices])
            scores.update(zip(indices, self._score(pixels), strict=True))
        return [scores[index] for index in range(len(views))]

    def _score(self, pixels: Tensor) -> Tensor:
        """Scores (n, C, test height, test width) of normalised, resized images (n, 3, h, w)."""
        features = self.image_encoder(pixels)
        features = F.interpolate(
            features.permute(0, 3, 1, 2),  # (n, d, h / stride, w / stride)
            self._test_feature_size((pixels.shape[2], pixels.shape[3])),
            mode="bilinear",
            align_corners=False,
        )
        scores = self.class_scores(features.permute(0, 2, 3, 1))
        return scores.permute(0, 3, 1, 2)  # (n, C, test height, test width)

    def class_scores(self, features: Tensor) -> Tensor:
        """Cosines (..., C) of dense or pooled features (..., d) with the vocabulary's classes.

        A background class has the score that the vocabulary's :class:`Background` gives it.
        """
        cosines = cosine_similarity(features, self.text_classifier)  # (..., embedded names)
        if self._background_index is None:
            return cosines
        return self._background.merge(cosines, len(self.class_names), self._background_index)

    def _test_feature_size(self, view_size: Size) -> Size:
        """``test_feature_size``, or as much more of it as the view is larger than usual."""
        height, width = (
            round(test * view / usual)
            for test, view, usual in zip(
                self.test_feature_size, view_size, self.clip_resolution, strict=True
            )
        )
        return height, width


def cosine_similarity(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines (..., n) between features (..., d) and vectors (n, d)."""
    return F.normalize(features, dim=-1) @ F.normalize(vectors, dim=-1).T


def cosine_maps(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines (B, n, h, w) float32 between dense features (B, h, w, d) and vectors (n, d)."""
    with torch.autocast(features.device.type, enabled=False):
        return cosine_similarity(features.float(), vectors.float()).permute(0, 3, 1, 2)


def _build_dino_masks(cfg: CfgNode) -> DinoMasks | None:
    node = cfg.MODEL.PIXELCLIP
    if node.MASK_SOURCE != "dino":
        return None
    dino = node.DINO
    return DinoMasks(dino.MODEL, dino.WEIGHTS, dino.NUM_MASKS, tuple(node.MASK_RESOLUTION))


def _compile_in_place(*modules: nn.Module) -> None:
    """Compile without a wrapper, which would change the names of parameters."""
    for module in modules:
        module.compile()


def _forget_text_classifier(model: PixelCLIP, _incompatible_keys: Any) -> None:
    model._text_classifier = None
    model._text_classifiers.clear()


def _output_size(inputs: Mapping[str, Any]) -> Size:
    height, width = inputs["image"].shape[-2:]
    return inputs.get("height", height), inputs.get("width", width)


def _vocabulary_of(dataset_name: str | None) -> tuple[Sequence[str], None, int | None]:
    """Class names of a data set, no templates of its own, and its background class's index."""
    metadata = MetadataCatalog.get(dataset_name) if dataset_name else None
    names = getattr(metadata, "stuff_classes", None)
    if not names:
        raise ValueError(
            f"The model has no vocabulary: DATASETS.TEST[0] is {dataset_name!r}, which has no "
            "stuff_classes. Call model.set_vocabulary([...]) or name a registered data set."
        )
    return names, None, getattr(metadata, "background_index", None)


def _check_resolution(resolution: Size, stride: int) -> None:
    if any(side < stride or side % stride for side in resolution):
        raise ValueError(
            f"MODEL.CLIP.RESOLUTION is {resolution}; both sides must be multiples of the image "
            f"encoder's stride, {stride}."
        )
