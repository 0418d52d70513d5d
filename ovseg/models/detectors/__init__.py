"""Open-vocabulary detectors on mmdet's base classes, samplers, coders and metrics."""

from mmdet.models import RPN  # for configs: by this way mmcv's stand-in is there before mmdet

from ovseg.models.detectors.clip_c4 import CLIPPoolHead, CLIPResNetC4
from ovseg.models.detectors.clip_vit_c4 import ChannelNorm, CLIPViTBlocksHead, CLIPViTC4
from ovseg.models.detectors.cosine_head import CosineBBoxHead
from ovseg.models.detectors.localiser import FrozenLocaliser
from ovseg.models.detectors.preprocessor import TwoViewPreprocessor
from ovseg.models.detectors.pretraining import RegionCLIPPretrainer
from ovseg.models.detectors.published_localiser import load_localiser
from ovseg.models.detectors.region_clip import RegionCLIPDetector
from ovseg.models.detectors.roi_head import RegionRoIHead
from ovseg.models.detectors.setup_hook import RegionCLIPSetup
from ovseg.models.detectors.transforms import TruthAsProposals

__all__ = [
    "RPN", "CLIPPoolHead", "CLIPResNetC4", "CLIPViTBlocksHead", "CLIPViTC4", "ChannelNorm",
    "CosineBBoxHead", "FrozenLocaliser", "RegionCLIPDetector", "RegionCLIPPretrainer", "RegionCLIPSetup",
    "RegionRoIHead", "TruthAsProposals", "TwoViewPreprocessor", "load_localiser",
]  # fmt: skip
