"""The dense CRF's mean field on arrays. Worker processes import this file and no torch, which takes two seconds."""

from typing import NamedTuple

import numpy as np

from coseglib.core.errors import CosegError

DOUBT = 0.1  # probability that a pixel is not background above which it is not so for certain


class Problem(NamedTuple):
    """What pydensecrf is asked about one photograph.

    rgb     uint8 (H, W, 3)
    costs   float32 (A, L, H·W): −log p of each label, of A answers about the photograph
    smooth, bilateral  what `coseglib.answering.crf.CRF` says: (pixels, weight) and (pixels, colours, weight)
    steps   mean-field iterations
    reach   pixels around what is not the background for certain that are asked about too; None: all
    """

    rgb: np.ndarray
    costs: np.ndarray
    smooth: tuple[float, float]
    bilateral: tuple[float, float, float]
    steps: int
    reach: int | None = None


def pydensecrf():
    """The module. Raises CosegError where it is not installed: it is built from source, which takes a C++ compiler."""
    try:
        import pydensecrf.densecrf as densecrf
    except ImportError as error:
        what = "pip install pydensecrf2, which takes a C++ compiler, or take argmax"
        raise CosegError(f"dense CRF: pydensecrf cannot be imported ({error}); {what}") from error
    return densecrf


def _part(problem: Problem) -> tuple[slice, slice]:
    """Rows and columns of a photograph that are asked about: beyond them all answers say background, and stay so."""
    height, width = problem.rgb.shape[:2]
    if problem.reach is None:
        return slice(0, height), slice(0, width)
    open_ = (problem.costs[:, 0] > -np.log(1 - DOUBT)).any(axis=0).reshape(height, width)
    found = []
    for axis, side in ((1, height), (0, width)):
        places = np.flatnonzero(open_.any(axis=axis))
        low, high = (places[0], places[-1] + 1) if len(places) else (0, 0)
        found.append(slice(max(0, low - problem.reach), min(side, high + problem.reach) if len(places) else 0))
    return found[0], found[1]


def solve(problem: Problem) -> np.ndarray:
    """Each label's probability at each pixel after the iterations: float32 (A, L, H, W).

    The answers share the prices between pixels, which take as long to set up as the iterations of one answer.
    """
    rows, columns = _part(problem)
    shape = (*problem.costs.shape[:2], *problem.rgb.shape[:2])
    found = np.zeros(shape, np.float32)
    found[:, 0] = 1
    part = found[:, :, rows, columns]
    if part.size:
        rgb = np.ascontiguousarray(problem.rgb[rows, columns])
        costs = problem.costs.reshape(shape)[:, :, rows, columns].reshape(*shape[:2], -1)
        part[:] = _mean_field(problem, rgb, costs)
    return found


def _mean_field(problem: Problem, rgb: np.ndarray, costs: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    answers, labels = costs.shape[:2]
    model = pydensecrf().DenseCRF2D(width, height, labels)
    xy, weight = problem.smooth
    if weight:
        model.addPairwiseGaussian(sxy=xy, compat=weight)
    xy, colours, weight = problem.bilateral
    if weight:
        model.addPairwiseBilateral(sxy=xy, srgb=colours, rgbim=rgb, compat=weight)
    found = np.empty((answers, labels, height, width), np.float32)
    for answer, its_costs in zip(found, costs, strict=True):
        model.setUnaryEnergy(np.ascontiguousarray(its_costs))
        answer[:] = np.array(model.inference(problem.steps)).reshape(answer.shape)
    return found
