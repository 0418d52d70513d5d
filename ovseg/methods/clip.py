"""CLIP itself, read densely: every patch token through the last block as the class token goes."""

from __future__ import annotations

from ovseg.methods.method import EMOJI_VITS, Method

__all__ = ["PlainCLIP"]


class PlainCLIP(Method):
    """The baseline that every method of this family improves on: nothing is rewritten."""

    name = "clip"
    title = "CLIP"
    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    reference = "openai/CLIP"
    code_licence = "MIT"
    towers = (*EMOJI_VITS, "vit_b16.openai", "vit_b16.laion2b")
