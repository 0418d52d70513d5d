"""MaskCLIP on the embedded tower, fine-tuned as a whole on the words of CamVid."""

from mmengine.config import read_base

from ovseg.models.segmentors import OpenVocabularySegmentor

with read_base():
    from .._base_.datasets.camvid import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403
    from .._base_.schedules.poly_2k import *  # noqa: F403

model = dict(
    type=OpenVocabularySegmentor,
    method="maskclip",
    tower="vit_tiny.emoji",
    classes=[
        "sky",
        "building",
        "pole",
        "road",
        "pavement: pavement | sidewalk",
        "tree",
        "sign symbol: traffic sign | sign",
        "fence",
        "car",
        "pedestrian: pedestrian | person",
        "bicyclist: bicyclist | cyclist",
    ],
    templates="imagenet7",
)
optim_wrapper.update(  # noqa: F405
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(
        layer_decay=dict(pattern=r"resblocks\.(\d+)\.", depth=6, rate=0.8),
    ),
)
