"""What was computed of photographs, kept for the next question about them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from torch import Tensor

MOST_BYTES = 256 * 2**20


def _bytes(value) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if hasattr(value, "pixels"):
        return value.pixels.nbytes
    return sum(_bytes(part) for part in value) if isinstance(value, Iterable) else 0


class Memory:
    """Pictures, features and answers by key, `most` bytes of them; what was not used for longest goes first."""

    def __init__(self, most: int = MOST_BYTES):
        self.most, self.size = most, 0
        self._values: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable):
        """What is kept by this key, or None."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def keep(self, key: Hashable, value) -> None:
        """Tensors are to be their own: a view would hold the whole of what it is a part of."""
        if key in self._values or _bytes(value) > self.most:
            return
        self._values[key] = value
        self.size += _bytes(value)
        while self.size > self.most:
            self.size -= _bytes(self._values.popitem(last=False)[1])

    def recall(self, key: Hashable, compute: Callable[[], object]):
        """What is kept by this key, or what `compute` gives, which is kept then unless it is None."""
        value = self.get(key)
        if value is None and (value := compute()) is not None:
            self.keep(key, value)
        return value
