"""Heads for mmseg's segmentors."""

from ovseg.models.decode_heads.similarity_head import SimilarityHead

__all__ = ["SimilarityHead"]
