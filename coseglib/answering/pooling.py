"""The attention of a group, pooled over a stream of its photographs (Chen et al. 2018, algorithm 1)."""

import torch
from torch import Tensor

from coseglib.core.errors import CosegError
from coseglib.models.contract import POOLINGS


class Pool:
    """The mean or the element-wise minimum of images' attention over a stream, in constant memory.

    size  D, the length of one image's attention
    how   "mean" or "min"
    The mean is summed in steps of 2^-40 as whole numbers, so it is exact up to that rounding of each term: the order of
    the images, their division among processes and the number of processes do not change one bit. Room for 2^23 − 1.
    """

    STEPS = 2.0**40
    MOST = 2**23 - 1

    def __init__(self, size: int, how: str = "mean"):
        if how not in POOLINGS:
            raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
        self.how, self.count = how, 0
        self.pooled = torch.zeros(size, dtype=torch.int64) if how == "mean" else torch.ones(size)

    def add(self, alpha: Tensor) -> None:
        """alpha (B, D) in [0, 1], of B images. Raises CosegError when it is not finite, or for too many images."""
        alpha = alpha.detach().cpu()
        if not alpha.isfinite().all():
            raise CosegError("attention: not finite for some image; the checkpoint is damaged, give another one")
        if self.how == "mean":
            self.pooled = self.pooled + (alpha.double() * self.STEPS).round().long().sum(dim=0)
        else:
            self.pooled = torch.minimum(self.pooled, alpha.float().amin(dim=0))
        self._set_count(self.count + len(alpha))

    def with_also(self, alpha: Tensor) -> "Pool":
        """This pool and one more image's attention (D,), as a pool of its own."""
        more = Pool(len(self.pooled), self.how)
        more.pooled, more.count = self.pooled, self.count
        more.add(alpha[None])
        return more

    def all_reduce(self, fabric) -> None:
        """Pool over all processes of a launched `lightning_fabric.Fabric`; each ends with the same numbers."""
        operation = "sum" if self.how == "mean" else "min"
        self.pooled = fabric.all_reduce(self.pooled, reduce_op=operation).cpu()
        self._set_count(int(fabric.all_reduce(torch.tensor(self.count), reduce_op="sum")))

    def _set_count(self, count: int) -> None:
        if count > self.MOST:
            raise CosegError(f"{count:,} images: one group holds at most {self.MOST:,}; split it")
        self.count = count

    def context(self) -> Tensor:
        """The group's attention, float (D,). Raises CosegError when nothing was added."""
        if not self.count:
            raise CosegError("no photographs: a group needs at least one")
        if self.how == "min":
            return self.pooled.clone()
        return (self.pooled.double() / self.count / self.STEPS).float()
