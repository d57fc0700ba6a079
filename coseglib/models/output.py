"""What every model returns: logits, and extras asked for by name."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from coseglib.core.errors import CosegError


@dataclass
class Output:
    """logits (B, N, K + 1, H, W) at the images' size; extras by name (attention, …).

    An extra that costs time is a function without arguments: called when somebody asks for it, and not in training.
    """

    logits: Tensor
    extras: dict[str, Tensor | Callable[[], Tensor]] = field(default_factory=dict)

    def extra(self, name: str) -> Tensor:
        """The extra of that name. Raises CosegError, naming the extras there are and the methods that offer it."""
        if name not in self.extras:
            from coseglib.models.registry import METHODS

            offered = [method for method, model in METHODS.items() if name in model.EXTRAS]
            by = f"offered by {', '.join(offered)}" if offered else "no method offers it"
            raise CosegError(f"{name}: not among this output's extras ({', '.join(self.extras) or 'none'}); {by}")
        if callable(self.extras[name]):
            self.extras[name] = self.extras[name]()
        return self.extras[name]
