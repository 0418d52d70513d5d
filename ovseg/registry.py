"""Registries of the OpenMMLab side: ``type="ovseg.X"`` in anyone's config finds what is registered here.

mmengine imports this module at the first such name, and ``ovseg.models`` with it.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

__all__ = ["DATASETS", "METRICS", "MODELS", "TRANSFORMS"]

_WHERE = {"scope": "ovseg", "locations": ["ovseg.models"]}

MODELS = Registry("model", parent=ROOT_MODELS, **_WHERE)
DATASETS = Registry("dataset", parent=ROOT_DATASETS, **_WHERE)
TRANSFORMS = Registry("transform", parent=ROOT_TRANSFORMS, **_WHERE)
METRICS = Registry("metric", parent=ROOT_METRICS, **_WHERE)
