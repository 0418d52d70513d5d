"""Losses in the form that mmdet's and mmseg's heads call."""

from ovseg.models.losses.region_cross_entropy import RegionCrossEntropy

__all__ = ["RegionCrossEntropy"]
