"""Methods with a second tower are tested with small random ones."""

from __future__ import annotations

from dataclasses import replace

import pytest


@pytest.fixture(autouse=True)
def tiny_auxiliary(monkeypatch):
    """Every auxiliary tower by name is a small one of its family, with patches of 16 pixels."""
    from ovseg.towers import auxiliary

    def builder(info):
        import torch
        from small_sam import small_sam

        from ovseg.towers.dino import SelfSupervisedViT, create_vit
        from ovseg.towers.sam import SamTower

        if info.family == "sam":
            return SamTower(small_sam(), info)
        torch.manual_seed(0)
        options = {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 64, "patch_size": 16}
        return SelfSupervisedViT(create_vit(replace(info, options=options)), info)

    rows = auxiliary._table.values()
    builders = {info.name: lambda info=info: builder(info) for info in rows}
    monkeypatch.setattr(auxiliary, "_builders", builders)
    monkeypatch.setattr(auxiliary, "_built", {})
