"""Which checkpoint is the best, after a training was killed and goes on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

__all__ = ["recover_best"]


def recover_best(runner: Runner) -> None:
    """Brings a resumed training's record of its best checkpoint in line with the files.

    mmengine validates, removes the old best file, writes the new one, and then notes it in the file from
    which a training goes on. After a kill in between, that file does not know of the best one, which
    then would stay beside a later, worse one; or it knows of one that is gone, and nothing would be saved
    until its score is beaten.

    Args:
        runner: It has loaded the checkpoint. Its record is changed, and of several best files up to its step
            the best is kept.
    """
    hooks = [h for h in runner._hooks if isinstance(h, CheckpointHook) and h.save_best and h.out_dir is None]
    if len(hooks) != 1 or len(hooks[0].key_indicators) != 1 or hooks[0].key_indicators == ["auto"]:
        return
    (key,), (rule,) = hooks[0].key_indicators, hooks[0].rules
    info = runner.message_hub.runtime_info
    if "best_ckpt" in info and not Path(info["best_ckpt"]).is_file():
        del info["best_ckpt"]
        info.pop("best_score", None)
    found = []
    for path in sorted(Path(runner.work_dir).glob(f"best_{key.replace('/', '_')}_*.pth")):
        about = _about(path)
        # a file of a later step will be written anew
        if "best_score" in about and about.get("iter", runner.iter) < runner.iter:
            found.append((float(about["best_score"]), path))
    if not found:
        return
    score, path = (max if rule == "greater" else min)(found)
    info["best_score"], info["best_ckpt"] = score, str(path)
    if is_main_process():
        for _, other in found:
            if other != path:
                other.unlink()


def _about(path: Path) -> dict[str, Any]:
    """What a checkpoint notes of its run; nothing if it cannot be read without running code."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict(checkpoint["message_hub"]["runtime_info"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, EOFError, OSError):
        return {}
