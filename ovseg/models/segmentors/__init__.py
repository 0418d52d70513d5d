"""Methods of the zoo as segmentors of mmseg."""

from ovseg.models.segmentors.open_vocabulary import OpenVocabularySegmentor

__all__ = ["OpenVocabularySegmentor"]
