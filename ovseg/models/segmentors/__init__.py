"""Methods of the zoo as segmentors of mmseg."""

from ovseg.models.segmentors.cat_seg import CATSegGroups, CATSegSegmentor
from ovseg.models.segmentors.clip_dinoiser import CLIPDINOiserGroups, CLIPDINOiserSegmentor, FoundTrainer
from ovseg.models.segmentors.open_vocabulary import OpenVocabularySegmentor

__all__ = [
    "CATSegGroups",
    "CATSegSegmentor",
    "CLIPDINOiserGroups",
    "CLIPDINOiserSegmentor",
    "FoundTrainer",
    "OpenVocabularySegmentor",
]
