"""Areas and what follows from them, against mmseg and against the definitions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ovseg.evaluation.calibration import Calibration
from ovseg.evaluation.miou import ClassAreas, boundary_areas, harmonic_mean, on_boundary

K = 7


@pytest.fixture
def images():
    """Five (prediction, truth) pairs in large blocks, with unlabelled predictions and ignored pixels."""
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(5):
        truth = rng.integers(-1, K - 1, (6, 8)).repeat(7, 0).repeat(6, 1).astype(np.int32)  # no class 6
        predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(-1, K, truth.shape))
        pairs.append((predicted.astype(np.int32), truth))
    return pairs


def total(pairs, count=ClassAreas.count):
    return sum((count(p, t, K) for p, t in pairs), ClassAreas.zeros(K))


def test_equal_to_mmsegs_metric(images):
    torch = pytest.importorskip("torch")
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric(iou_metrics=["mIoU"], ignore_index=255)
    metric.dataset_meta = {"classes": [str(i) for i in range(K)]}
    for predicted, truth in images:
        data = {"pred_sem_seg": predicted, "gt_sem_seg": np.where(truth < 0, 255, truth)}
        metric.process({}, [{key: {"data": torch.from_numpy(v)[None]} for key, v in data.items()}])
    theirs = metric.evaluate(len(images))
    ours = total(images)
    assert 100 * ours.mean_iou() == pytest.approx(theirs["mIoU"], abs=0.006)  # theirs is rounded
    assert 100 * ours.mean_accuracy == pytest.approx(theirs["mAcc"], abs=0.006)
    assert 100 * ours.pixel_accuracy == pytest.approx(theirs["aAcc"], abs=0.006)


def test_areas_from_a_confusion_matrix(images):
    ours = total(images)
    matrix = np.zeros((K, K + 1), int)  # the last column: no class
    for predicted, truth in images:
        np.add.at(matrix, (truth[truth >= 0], predicted[truth >= 0]), 1)
    assert (ours.intersection == np.diag(matrix)).all()
    assert (ours.predicted == matrix[:, :K].sum(0)).all()
    assert (ours.labelled == matrix.sum(1)).all()
    assert ours.iou[6] == 0  # predicted, never labelled
    assert np.isnan(ours.accuracy[6])


def test_absent_classes_do_not_count():
    labels = np.zeros((4, 4), np.int32)
    areas = ClassAreas.count(labels, labels, 3)
    assert areas.mean_iou() == 1
    assert np.isnan(areas.mean_iou([1, 2]))
    assert np.isnan(ClassAreas.zeros(3).pixel_accuracy)


def test_image_mean_counts_labelled_classes_only():
    truth = np.zeros((4, 4), np.int32)
    predicted = truth.copy()
    predicted[0, 0] = 2
    areas = ClassAreas.count(predicted, truth, 3)
    assert areas.mean_iou() == pytest.approx(15 / 32)
    assert areas.mean_iou_of_labelled() == pytest.approx(15 / 16)


def test_many_classes_stay_exact():
    classes = 30_000
    truth = np.arange(classes, dtype=np.int32).reshape(100, 300)
    areas = ClassAreas.count(truth, truth, classes)
    big = ClassAreas(areas.intersection + 2**24, areas.predicted + 2**24, areas.labelled + 2**24)
    assert ((big + areas).labelled == 2**24 + 2).all()  # float32 sums, as mmseg has them, would lose the 2


def naive_boundary(labels: np.ndarray, reach: int) -> np.ndarray:
    """As the authors do it: each class's mask less the mask eroded ``reach`` times."""
    out = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        mask = cv2.copyMakeBorder(
            (labels == value).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0
        )
        eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
        out |= (labels == value) & (eroded == 0)
    return out


@pytest.mark.parametrize("reach", [1, 3])
def test_boundary_of_all_classes_at_once(images, reach):
    for _, truth in images:
        assert (on_boundary(truth, reach) == naive_boundary(truth, reach)).all()


def test_boundary_iou(images):
    predicted, truth = images[0]
    ours = boundary_areas(predicted, truth, K)
    reach = max(round(0.02 * np.hypot(*truth.shape)), 1)
    counted = truth >= 0
    for k in range(K):
        p, t = ((labels == k) & naive_boundary(labels, reach) & counted for labels in (predicted, truth))
        assert ours.intersection[k] == (p & t).sum()
        assert ours.predicted[k] + ours.labelled[k] - ours.intersection[k] == (p | t).sum()


def test_boundary_iou_sees_what_iou_hardly_does():
    truth = np.zeros((100, 100), np.int32)
    truth[20:80, 20:80] = 1
    shifted = np.roll(truth, 1, 1)
    assert ClassAreas.count(shifted, truth, 2).mean_iou() > 0.95
    assert boundary_areas(shifted, truth, 2).mean_iou() < 0.8


def test_calibration_by_definition(images):
    rng = np.random.default_rng(2)
    probabilities = [rng.random(t.shape).astype(np.float16) for _, t in images]
    counts = sum(
        (Calibration.count(p, t, s) for (p, t), s in zip(images, probabilities)), Calibration.zeros()
    )
    p, t, s = (np.concatenate([np.ravel(x) for x in xs]) for xs in (*zip(*images), probabilities))
    keep = (t >= 0) & (p >= 0)
    right, s = (p == t)[keep], s[keep].astype(float)
    gaps = [
        abs(s[inside].sum() - right[inside].sum())
        for i in range(15)
        if (inside := (s >= i / 15) & (s < (i + 1) / 15) | ((i == 14) & (s == 1))).any()
    ]
    assert counts.error == pytest.approx(sum(gaps) / keep.sum(), abs=1e-5)


def test_calibration_of_extremes():
    truth = np.array([[0, 0, 1, 1]])
    sure = np.ones((1, 4))
    assert Calibration.count(truth, truth, sure).error == 0
    assert Calibration.count(1 - truth, truth, sure).error == 1
    assert np.isnan(Calibration.count(np.full((1, 4), -1), truth, sure).error)


def test_harmonic_mean():
    assert harmonic_mean([0.4, 0.2]) == pytest.approx(2 * 0.4 * 0.2 / 0.6)
    assert harmonic_mean([0.4, 0.0]) == 0
    assert np.isnan(harmonic_mean([0.4, float("nan")]))
