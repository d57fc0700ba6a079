"""What was computed of photographs, kept for the next question about them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from torch import Tensor

MOST = 256 * 2**20  # bytes


def _bytes(value) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if hasattr(value, "pixels"):
        return value.pixels.nbytes
    return sum(_bytes(part) for part in value) if isinstance(value, Iterable) else 0


class Memory:
    """Pictures and features by key, `most` bytes of them at most; what was not used for longest goes first."""

    def __init__(self, most: int = MOST):
        self.most, self.size = most, 0
        self._kept: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __call__(self, key: Hashable, compute: Callable[[], object]):
        """What `compute` gives, computed once as long as it is kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value = compute()
        self.keep(key, value)
        return value

    def keep(self, key: Hashable, value) -> None:
        size = _bytes(value)
        if size > self.most or key in self._kept:
            return
        self._kept[key] = value, size
        self.size += size
        while self.size > self.most:
            self.size -= self._kept.popitem(last=False)[1][1]
