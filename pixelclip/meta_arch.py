"""PixelCLIP as a Detectron2 meta-architecture.

Shapes: B images, N masks in the batch, K clusters, mask resolution (Mh, Mw), C classes, feature
grid h x w, d the width of CLIP's joint embedding space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.config import check_model_config
from pixelclip.modeling.class_prompts import build_cluster_embeddings
from pixelclip.modeling.clip_loader import load_clip, load_tokenizer
from pixelclip.modeling.dino_masks import build_dino_masks
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.modeling.inference_views import (
    InferenceViews,
    ScoredImage,
    build_inference_views,
    find_best_classes,
    merge_views,
)
from pixelclip.modeling.losses import count_pixels, decoded_mask_loss
from pixelclip.modeling.mask_decoder import MaskDecoder
from pixelclip.modeling.mask_features import MaskFeatures, build_mask_features
from pixelclip.modeling.mask_queue import MaskQueue, build_mask_queue, share_clusters
from pixelclip.modeling.momentum_teacher import MomentumTeacher
from pixelclip.modeling.sinkhorn import MaskAssignment, build_assignment
from pixelclip.modeling.targets import (
    EncodedMasks,
    MaskTargets,
    TrainingMasks,
    merge_masks,
    union_of_masks,
)
from pixelclip.modeling.text_classifier import (
    Background,
    TextClassifier,
    build_classifier,
    cosine_maps,
)
from pixelclip.modeling.text_encoder import TextEncoder
from pixelclip.modeling.trainable_parameters import apply_finetune_policy
from pixelclip.modeling.training_statistics import report_agreement, report_clusters
from pixelclip.modeling.unclustered_targets import match_masks
from pixelclip.utils.distributed import all_gather_uneven
from pixelclip.utils.transfer import to_device

Inputs = Sequence[Mapping[str, Any]]


@META_ARCH_REGISTRY.register()
class PixelCLIP(nn.Module):
    """CLIP fine-tuned with unlabeled masks to segment any vocabulary.

    In training mode, ``model(batched_inputs)`` returns ``{"loss_masks": scalar}``; each input is a
    dict with

    * ``image``, ``image_strong``: (3, H, W) RGB in 0..255, weakly and strongly augmented;
    * ``masks``: (N, Mh, Mw) bool at the mask resolution, or what ``pack_sample`` makes of them, or
      ``instances`` with ``BitMasks`` at image resolution as ``gt_masks``; none if DINO makes them.

    In eval mode it returns ``[{"sem_seg": (C, height, width) float32 cosines}]``; each input is a
    dict with ``image`` and the ``height`` and ``width`` of the output in pixels (by default the
    image's own); with ``MODEL.PIXELCLIP.TEST_MASKS "given"`` also the ``masks`` and the
    ``mask_index_map`` of ``InferenceMasks``. The classes are those of :meth:`set_vocabulary`, or of
    the first test data set. ``PixelCLIP(cfg, for_training=False)`` only has what eval mode needs.

    Args:
        image_encoder: the student.
        text_encoder: frozen.
        class_prompts: K prompts, or what stands in for them; see ``class_prompts.py``.
        teacher, mask_decoder: what only training needs; None in a model for inference.
        pixel_mean, pixel_std: three values each, for RGB in 0..255.
        clip_resolution: (height, width) to which images are resized.
        training_masks: gives a batch's masks at the mask resolution.
        mask_features, mask_queue: what masks are clustered by, and with (None: with no others).
        assignment: gives the masks their clusters.
        text_classifier: holds the vocabulary.
        inference_views: which views of a test image are scored, and how.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    teacher: MomentumTeacher
    mask_decoder: MaskDecoder

    @configurable
    def __init__(
        self,
        *,
        image_encoder: DenseImageEncoder,
        text_encoder: TextEncoder,
        class_prompts: nn.Module,
        teacher: MomentumTeacher | None,
        mask_decoder: MaskDecoder | None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        clip_resolution: tuple[int, int],
        training_masks: TrainingMasks,
        mask_features: MaskFeatures,
        mask_queue: MaskQueue | None,
        assignment: MaskAssignment,
        text_classifier: TextClassifier,
        inference_views: InferenceViews,
    ) -> None:
        super().__init__()
        image_encoder.check_resolution(clip_resolution)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        # Without clusters the prompts have no gradient, which distributed training must know.
        self.class_prompts = class_prompts.requires_grad_(assignment.has_clusters)
        self.teacher, self.mask_decoder = teacher, mask_decoder  # type: ignore[assignment]
        # (3, 1, 1) each
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.clip_resolution = clip_resolution
        self.training_masks = training_masks
        self.mask_features = mask_features
        self.mask_queue = mask_queue
        self.assignment = assignment
        self.text_classifier = text_classifier
        self.inference_views = inference_views
        # The text features belong to the text encoder's weights.
        self.register_load_state_dict_post_hook(text_classifier.clear_text_cache)
        self.train(teacher is not None)

    @classmethod
    def from_config(cls, cfg: CfgNode, for_training: bool = True) -> dict[str, Any]:
        """Arguments of the constructor, out of a Detectron2 config."""
        check_model_config(cfg)
        node = cfg.MODEL.PIXELCLIP
        clip = load_clip(cfg.MODEL.CLIP.ARCH, cfg.MODEL.CLIP.PRETRAINED, bool(cfg.MODEL.WEIGHTS))
        image_encoder = DenseImageEncoder(
            clip.visual, cfg.MODEL.CLIP.DENSE_PATH, cfg.MODEL.CLIP.ACTIVATION_CHECKPOINTING
        )
        apply_finetune_policy(image_encoder, cfg.MODEL.CLIP.FINETUNE)
        text_encoder = TextEncoder(clip, load_tokenizer(cfg.MODEL.CLIP.ARCH))
        class_prompts = build_cluster_embeddings(cfg, text_encoder)
        teacher = MomentumTeacher(image_encoder, node.MOMENTUM) if for_training else None
        mask_features = build_mask_features(cfg, image_encoder, teacher)
        mask_decoder = MaskDecoder() if for_training else None
        if cfg.MODEL.COMPILE:
            # In place: a wrapper would change the names of parameters.
            own_teacher = teacher and teacher.image_encoder
            for module in filter(None, (image_encoder, own_teacher, mask_decoder)):
                module.compile()
        return {
            "image_encoder": image_encoder,
            "text_encoder": text_encoder,
            "class_prompts": class_prompts,
            "teacher": teacher,
            "mask_decoder": mask_decoder,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "clip_resolution": tuple(cfg.MODEL.CLIP.RESOLUTION),
            "training_masks": TrainingMasks(tuple(node.MASK_RESOLUTION), build_dino_masks(cfg)),
            "mask_features": mask_features,
            "mask_queue": build_mask_queue(cfg, image_encoder.embedding_dim),
            "assignment": build_assignment(cfg),
            "text_classifier": build_classifier(cfg, text_encoder),
            "inference_views": build_inference_views(cfg, mask_features),
        }

    @property
    def device(self) -> torch.device:
        """Device on which the model computes."""
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> "PixelCLIP":
        """Set the mode; a model for inference refuses training mode with a RuntimeError."""
        if mode and self.teacher is None:
            raise RuntimeError("The model was built for inference: build PixelCLIP(cfg) to train.")
        return super().train(mode)

    def forward(self, batched_inputs: Inputs, with_pixel_count: bool = False) -> Any:
        """Losses in training mode, ``sem_seg`` of every image in eval mode; see the class.

        With ``with_pixel_count``, in training mode, all that :meth:`losses` returns.
        """
        if not self.training:
            return self.inference(batched_inputs)
        losses, pixel_count = self.losses(batched_inputs)
        return (losses, pixel_count) if with_pixel_count else losses

    def losses(self, batched_inputs: Inputs) -> tuple[dict[str, Tensor], Tensor]:
        """Loss between the student's prediction and the targets that the updated teacher makes.

        It is a mean over the valid pixels of all processes, scaled by their number because
        DistributedDataParallel averages gradients: it does not depend on how many processes share a
        batch. Without any mask it is zero, with zero gradients.

        Returns:
            ``{"loss_masks": scalar}``, and the number of pixels of all processes, scalar int64,
            that it is the mean over.

        Raises:
            ValueError: masks of another size than the mask resolution.
        """
        self.teacher.update(self.image_encoder)
        masks, image_index, mask_features, teacher_features = self.encode_masks(batched_inputs)
        strong = self.preprocess([inputs["image_strong"] for inputs in batched_inputs])
        student = self.image_encoder(strong)  # (B, h, w, d)
        report_agreement(teacher_features, student)
        match = self._match_clusters if self.assignment.has_clusters else match_masks
        similarity, targets, pixel_count = match(student, mask_features, masks, image_index)
        mean_pixels = pixel_count.clamp(min=1) / comm.get_world_size()
        loss = decoded_mask_loss(self.mask_decoder, similarity, targets, mean_pixels)
        return {"loss_masks": loss}, pixel_count

    @torch.no_grad()
    def encode_masks(self, batched_inputs: Inputs) -> EncodedMasks:
        """The masks of a training batch and their features, with the teacher as it is."""
        masks, image_index = self.training_masks(batched_inputs, self.device)
        images = [inputs["image"] for inputs in batched_inputs]
        dense = self.teacher(self.preprocess(images))  # (B, h, w, d)
        # Only crops need images of their own size, which would fill the memory.
        features = self.mask_features(dense, masks, image_index, map(self.normalize, images))
        return EncodedMasks(masks, image_index, features, dense)

    def _match_clusters(
        self, features: Tensor, mask_features: Tensor, masks: Tensor, image_index: Tensor
    ) -> tuple[Tensor, MaskTargets, Tensor]:
        """Similarity (B*K, h, w) of dense features to the clusters, its targets and pixel count."""
        cluster_embeddings = self.class_prompts(self.text_encoder)  # (K, d)
        num_images, num_clusters = len(features), len(cluster_embeddings)
        valid_mask = union_of_masks(masks, image_index, num_images)
        image_of_map = torch.arange(num_images * num_clusters, device=self.device) // num_clusters
        logits = self.assignment.logits(mask_features, cluster_embeddings)  # (N, K)
        gathered = all_gather_uneven(logits, count_pixels(image_of_map, valid_mask))
        # The masks of all processes share the clusters evenly.
        probabilities = share_clusters(
            self.assignment, self.mask_queue, gathered.rows, mask_features, cluster_embeddings
        )
        report_clusters(probabilities)
        assignment = probabilities[gathered.own].argmax(dim=1)  # (N,)
        targets = merge_masks(masks, image_index, assignment, num_images, num_clusters)
        similarity = cosine_maps(features, cluster_embeddings)  # (B, K, h, w)
        maps = MaskTargets(targets.flatten(0, 1), image_of_map, valid_mask)
        return similarity.flatten(0, 1), maps, gathered.total

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Normalize RGB images (3, H, W) in 0..255 of any sizes and resize them to one batch."""
        size, normalized = self.clip_resolution, (self.normalize(image)[None] for image in images)
        return torch.cat([F.interpolate(image, size, mode="bilinear") for image in normalized])

    def normalize(self, image: Tensor) -> Tensor:
        """An RGB image (3, H, W) in 0..255 as CLIP takes it, on the model's device."""
        return (to_device(image, self.device).float() - self.pixel_mean) / self.pixel_std

    def set_vocabulary(
        self,
        class_names: Sequence[str],
        templates: str | None = None,
        background_index: int | None = None,
        background: Background | None = None,
    ) -> None:
        """Choose the classes that the model segments; see :meth:`TextClassifier.set_names`."""
        self.text_classifier.set_names(class_names, templates, background_index, background)

    def set_clusters_as_classes(self) -> None:
        """Let each class prompt be a class, of any meaning, until :meth:`set_vocabulary`."""
        self.text_classifier.set_clusters(self.class_prompts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The current vocabulary; () until one is set."""
        return self.text_classifier.class_names

    @torch.no_grad()
    def inference(self, batched_inputs: Inputs) -> list[dict[str, Tensor]]:
        """Cosines of every class at every pixel; see the class."""
        return [{"sem_seg": merge_views(*scored)} for scored in self.score_images(batched_inputs)]

    @torch.no_grad()
    def segment_labels(self, batched_inputs: Inputs) -> list[Tensor]:
        """Label map (height, width) of each image, without the scores of all classes.

        Equals ``output["sem_seg"].argmax(dim=0)`` of what the model returns in eval mode for the
        same inputs, in a fraction of its memory.

        Returns:
            uint8 up to 256 classes, else int32.
        """
        labels = [find_best_classes(*scored)[0] for scored in self.score_images(batched_inputs)]
        dtype = torch.uint8 if len(self.class_names) <= 256 else torch.int32
        return [image_labels.to(dtype) for image_labels in labels]

    @torch.no_grad()
    def score_images(self, batched_inputs: Inputs) -> list[ScoredImage]:
        """Scores of the views of each image, for ``merge_views(*scored)`` and its like."""
        images = [self.normalize(inputs["image"]) for inputs in batched_inputs]
        models = self.image_encoder, self.text_classifier
        return self.inference_views.score_images(images, batched_inputs, *models)
