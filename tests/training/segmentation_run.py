"""A small training, as a function and as a program that tests kill: ``python ... DATA WORK_DIR [STEPS]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from mmengine.config import Config

from ovseg.training.groups import PatternGroups
from ovseg.training.hooks import PlainCheckpoint, SeededSteps
from ovseg.training.run import train
from ovseg.training.samples import SampleNumbers, SeededSamples

VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 48, "head_width": 24, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def _data(root: Path) -> dict:
    """Loaders, and evaluators, of a folder."""
    load = [dict(type="mmcv.LoadImageFromFile"), dict(type="ovseg.LoadLabels", num_classes=3)]
    pack = [dict(type="mmseg.PackSegInputs")]
    augment = [
        dict(type="mmcv.RandomResize", scale=(90, 70), ratio_range=(0.95, 1.5), keep_ratio=True),
        dict(type="mmseg.RandomCrop", crop_size=(64, 64)),
        dict(type="mmcv.RandomFlip", prob=0.5),
        dict(type="mmseg.PhotoMetricDistortion"),
    ]
    folder = dict(type="ovseg.FolderDataset", data_root=str(root))
    test = dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
    return dict(
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type=SampleNumbers),
            dataset=dict(type=SeededSamples, dataset=dict(**folder, pipeline=[*load, *augment, *pack])),
        ),
        val_dataloader=dict(**test, dataset=dict(**folder, pipeline=[*load, *pack], indices=2)),
        val_evaluator=dict(type="mmseg.IoUMetric"),
        test_dataloader=dict(**test, dataset=dict(**folder, pipeline=[*load, *pack])),
        test_evaluator=dict(type="mmseg.IoUMetric"),
    )


def _model(frozen: bool) -> dict:
    return dict(
        type="mmseg.EncoderDecoder",
        data_preprocessor=dict(
            type="mmseg.SegDataPreProcessor", mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_val=0,
            seg_pad_val=255, size=(64, 64), test_cfg=dict(size_divisor=16),
        ),
        backbone=dict(type="ovseg.CLIPViT", tower=VIT, out_blocks=[0, 1], strides=[8, 16], frozen=frozen),
        decode_head=dict(
            type="ovseg.SimilarityHead", tower=VIT, classes=["a", "b", "c"], in_channels=48, in_index=1,
            channels=16, norm_cfg=dict(type="BN", requires_grad=True), dropout_ratio=0.3, templates="imagenet7",
        ),
        train_cfg={},
        test_cfg=dict(mode="whole"),
    )  # fmt: skip


def config(data: Path, steps: int = 12, frozen: bool = False, **changes) -> Config:
    """Crops, flips, colours and dropout: everything random that a training has."""
    return Config(
        dict(
            default_scope="mmseg",
            model=_model(frozen),
            **_data(data),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=steps, val_interval=4),
            val_cfg=dict(type="ValLoop"),
            test_cfg=dict(type="TestLoop"),
            optim_wrapper=dict(
                constructor=PatternGroups, optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
                clip_grad=dict(max_norm=1.0), accumulative_counts=1,
            ),
            param_scheduler=[dict(type="PolyLR", power=0.9, by_epoch=False, begin=0, end=steps)],
            default_hooks=dict(
                checkpoint=dict(
                    type="CheckpointHook", by_epoch=False, interval=2, max_keep_ckpts=2, save_best="mIoU",
                    rule="greater",
                ),
                logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
            ),
            custom_hooks=[
                dict(type=SeededSteps),
                dict(type="EMAHook", momentum=0.05, update_buffers=False),
                dict(type=PlainCheckpoint),
            ],
            randomness=dict(seed=0),
            log_processor=dict(by_epoch=False),
            log_level="INFO",
            **changes,
        )
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(config(Path(sys.argv[1])), sys.argv[2], resume=True)
