"""The fast bilateral solver (Barron and Poole, ECCV 2016), by which FOUND's masks snap to edges of the image.

Pixels of like colour and place share a vertex of a sparse grid; a mask is made smooth there, between
neighbouring vertices, and read back.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix, diags

__all__ = ["BilateralSolver", "snap"]

_YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_YUV_OFFSET = np.array([0.0, 128.0, 128.0])
_CONFIDENCE = 0.999  # that FOUND has in every pixel of a mask
_SMOOTHNESS = 256.0
_ROUNDS = 10  # of the normalisation, as in the authors' code
_ITERATIONS, _TOLERANCE = 25, 1e-5  # of the conjugate gradients


class BilateralSolver:
    """The grid of one image, for any number of masks.

    Args:
        image: (H, W, 3) uint8 RGB.
        spatial: Pixels that a vertex covers.
        luma: Levels of brightness that it covers, of 256.
        chroma: Levels of the two colour differences that it covers.
    """

    def __init__(
        self, image: NDArray[np.uint8], spatial: float = 16, luma: float = 16, chroma: float = 8
    ) -> None:
        cells, self._vertex = np.unique(_cells(image, spatial, luma, chroma), return_inverse=True)
        self._vertex = self._vertex.reshape(-1)
        self._counts = np.bincount(self._vertex, minlength=len(cells)).astype(float)
        blur = _blur(cells)
        scale = np.ones(len(cells))
        for _ in range(_ROUNDS):
            scale = np.sqrt(scale * self._counts / (blur @ scale))
        # the row sums that the rounds have reached, so that a constant mask stays as it is
        smooth = diags(scale * (blur @ scale)) - diags(scale) @ blur @ diags(scale)
        self._system = (_SMOOTHNESS * smooth + diags(_CONFIDENCE * self._counts)).tocsr()

    def smooth(self, mask: NDArray[np.floating]) -> NDArray[np.float64]:
        """(H, W) mask made smooth where the image is."""
        total = np.bincount(self._vertex, weights=mask.reshape(-1), minlength=len(self._counts))
        solved = _solve(self._system, _CONFIDENCE * total, total / self._counts)
        return solved[self._vertex].reshape(mask.shape)


def _cells(image: NDArray[np.uint8], spatial: float, luma: float, chroma: float) -> NDArray[np.int64]:
    """(H * W,) number of each pixel's cell of five coordinates, with room for neighbours of each."""
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    yuv = image @ _YUV.T + _YUV_OFFSET
    parts = [
        columns / spatial,
        rows / spatial,
        yuv[..., 0] / luma,
        yuv[..., 1] / chroma,
        yuv[..., 2] / chroma,
    ]
    number = np.zeros(height * width, np.int64)
    for part in parts:
        number = (number << 12) + part.astype(np.int64).reshape(-1) + 1
    return number


def _blur(cells: NDArray[np.int64]) -> csr_matrix:
    """1 2 1 along each of the five coordinates, added up, over the cells that are there."""
    count = len(cells)
    total = diags(np.full(count, 10.0)).tocsr()
    for axis, step in product(range(5), (-1, 1)):
        wanted = cells + (step << 12 * axis)
        at = np.searchsorted(cells, wanted).clip(max=count - 1)
        (there,) = np.nonzero(cells[at] == wanted)
        total = total + csr_matrix((np.ones(len(there)), (there, at[there])), (count, count))
    return total


def _solve(system: csr_matrix, target: NDArray, start: NDArray) -> NDArray:
    """Conjugate gradients with the diagonal as preconditioner; published masks depend on the iterations."""
    inverse = 1 / np.maximum(system.diagonal(), 1e-5)
    solution = start.copy()
    residual = target - system @ solution
    enough = _TOLERANCE * float(np.linalg.norm(target))
    direction, power = np.zeros_like(start), 1.0
    for _ in range(_ITERATIONS):
        if np.linalg.norm(residual) <= enough:
            break
        step = inverse * residual
        before, power = power, float(residual @ step)
        direction = step + power / before * direction
        image = system @ direction
        length = power / float(direction @ image)
        solution += length * direction
        residual -= length * image
    return solution


def snap(mask: NDArray[np.floating], solver: BilateralSolver) -> NDArray[np.bool_] | None:
    """A mask at the image's edges, or None where that would be another one (IoU of up to one half).

    Holes are filled. Of the regions that arise, the background's among them, all but the largest are kept, as
    in the authors' code.

    Args:
        mask: (H, W) in [0, 1].
        solver: Of the image.

    Returns:
        (H, W).
    """
    regions, _ = ndimage.label(ndimage.binary_fill_holes(solver.smooth(mask) > 0.5))
    kept = regions != np.bincount(regions.reshape(-1)).argmax()
    own = mask > 0.5
    both, either = np.count_nonzero(own & kept), np.count_nonzero(own | kept)
    return kept if both > 0.5 * either else None
