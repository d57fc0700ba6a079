"""The dense CRF's mean field on arrays. Worker processes import this file and no torch, which takes two seconds."""

from typing import NamedTuple

import numpy as np

from coseglib.core.errors import CosegError


class Problem(NamedTuple):
    """What pydensecrf is asked about one photograph.

    rgb     uint8 (H, W, 3)
    costs   float32 (A, L, H·W): −log p of each label, of A answers about the photograph
    smooth, bilateral  what `coseglib.answering.crf.CRF` says: (pixels, weight) and (pixels, colours, weight)
    steps   mean-field iterations
    """

    rgb: np.ndarray
    costs: np.ndarray
    smooth: tuple[float, float]
    bilateral: tuple[float, float, float]
    steps: int


def pydensecrf():
    """The module. Raises CosegError where it is not installed: it is built from source, which takes a C++ compiler."""
    try:
        import pydensecrf.densecrf as densecrf
    except ImportError as error:
        what = "pip install pydensecrf2, which takes a C++ compiler, or take argmax"
        raise CosegError(f"dense CRF: pydensecrf cannot be imported ({error}); {what}") from error
    return densecrf


def solve(problem: Problem) -> np.ndarray:
    """Each label's probability at each pixel after the iterations: float32 (A, L, H, W).

    The answers share the prices between pixels, which take as long to set up as the iterations of one answer.
    """
    height, width = problem.rgb.shape[:2]
    answers, labels = problem.costs.shape[:2]
    model = pydensecrf().DenseCRF2D(width, height, labels)
    xy, weight = problem.smooth
    if weight:
        model.addPairwiseGaussian(sxy=xy, compat=weight)
    xy, colours, weight = problem.bilateral
    if weight:
        model.addPairwiseBilateral(sxy=xy, srgb=colours, rgbim=problem.rgb, compat=weight)
    found = np.empty((answers, labels, height, width), np.float32)
    for answer, costs in zip(found, problem.costs, strict=True):
        model.setUnaryEnergy(np.ascontiguousarray(costs))
        answer[:] = np.array(model.inference(problem.steps)).reshape(answer.shape)
    return found
