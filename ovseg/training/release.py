"""From a training's config and checkpoint to a predictor, which can be saved as a release file."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ovseg.inference.predictor import Predictor
from ovseg.towers.checkpoints import CheckpointError, read_state_dict

__all__ = ["trained_predictor"]


def trained_predictor(config: str | Path | Config, checkpoint: str | Path) -> Predictor:
    """The open-vocabulary model that a training left behind, with its words as the vocabulary.

    Args:
        config: Of the training (a file is Python and is executed: only name files you trust).
        checkpoint: Of the training; frozen parameters, which it does not hold, come from the config's tower.

    Raises:
        FileNotFoundError: The config or the checkpoint is not there.
        ValueError: The config's model has fixed classes, so that it cannot be asked for words.
        CheckpointError: The checkpoint does not fit the config's model.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmseg")):
        model = MODELS.build(cfg.model)
    if not hasattr(model, "predictor"):
        raise ValueError(
            f"a {type(model).__name__} has the classes of its training and no words: it is tested with "
            "tools/test.py; OpenVocabularySegmentor takes any words"
        )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = model.load_state_dict(read_state_dict(path), strict=False)
    wrong = [*found.unexpected_keys, *(name for name in found.missing_keys if name in trained)]
    if wrong:
        raise CheckpointError(f"{path} is not of the training that {cfg.filename} describes: {wrong[0]}")
    return model.predictor()
