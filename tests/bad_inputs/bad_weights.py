"""Damaged, foreign and malicious weights, by the name of their file."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable

from bad_images import encoded


class Malice:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def _weights() -> dict[str, object]:
    import torch

    torch.manual_seed(0)
    return {
        "visual.proj": torch.randn(8, 4),
        "text_projection": torch.randn(8, 4),
        "logit_scale": torch.ones(()),
    }


def _torch_bytes(data: object) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(data, file)
    return file.getvalue()


def _safe_bytes(changes: Callable[[dict], dict] = lambda weights: weights) -> bytes:
    from safetensors.torch import save

    return save(changes(_weights()))


def _nan(weights: dict) -> dict:
    weights["visual.proj"][1, 2] = float("nan")
    return weights


WEIGHTS: dict[str, Callable[[], bytes]] = {
    "empty.pt": lambda: b"",
    "empty.safetensors": lambda: b"",
    "text.pt": lambda: b"weights",
    "text.safetensors": lambda: b"weights",
    "page.pt": lambda: b"<html>sign in</html>",
    "pointer.safetensors": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "malice.pt": lambda: pickle.dumps(Malice()),
    "malice_inside.pt": lambda: pickle.dumps({"state_dict": {"visual.proj": Malice()}}),
    "malice_torch.pt": lambda: _torch_bytes({"state_dict": _weights(), "args": Malice()}),
    "malice.safetensors": lambda: pickle.dumps(Malice()),
    "number.pt": lambda: _torch_bytes(3),
    "tensor.pt": lambda: _torch_bytes(_weights()["visual.proj"]),
    "nothing.pt": lambda: _torch_bytes({}),
    "no_tensors.pt": lambda: _torch_bytes({"epoch": 3}),
    "other.pt": lambda: _torch_bytes({"fc.weight": _weights()["visual.proj"]}),
    "few.pt": lambda: _torch_bytes(_weights()),
    "few.safetensors": _safe_bytes,
    "nan.safetensors": lambda: _safe_bytes(_nan),
    "cut_10.pt": lambda: _torch_bytes(_weights())[:200],
    "cut_90.pt": lambda: _torch_bytes(_weights())[:-100],
    "cut.safetensors": lambda: _safe_bytes()[:-20],
    "long_header.safetensors": lambda: b"\xff" * 8 + b"{}",
    "bad_header.safetensors": lambda: struct.pack("<Q", 4) + b"abcd",
    "image.pt": lambda: encoded("png"),
}
