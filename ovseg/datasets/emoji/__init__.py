"""EmojiScenes: scenes composed from emoji drawings on named textures, with exact masks and captions."""

from ovseg.datasets.emoji.batches import EmojiBatches, Stage
from ovseg.datasets.emoji.captions import PROMPTS, caption, training_texts
from ovseg.datasets.emoji.compose import Pose, Scene, paste
from ovseg.datasets.emoji.drawings import ARTISTS, Artist, Drawings, Split, default_path
from ovseg.datasets.emoji.scenes import EmojiScenes, SceneComposer
from ovseg.datasets.emoji.textures import TEXTURES, TextureBank, draw_texture
from ovseg.datasets.emoji.words import Word, WordGroup, WordTable, word_table

__all__ = [
    "ARTISTS",
    "PROMPTS",
    "TEXTURES",
    "Artist",
    "Drawings",
    "EmojiBatches",
    "EmojiScenes",
    "Pose",
    "Scene",
    "SceneComposer",
    "Split",
    "Stage",
    "TextureBank",
    "Word",
    "WordGroup",
    "WordTable",
    "caption",
    "default_path",
    "draw_texture",
    "paste",
    "training_texts",
    "word_table",
]
