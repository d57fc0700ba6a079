"""The registry: a method's name, its model, what kind of model it is. A further paper is one file and one line here."""

from dataclasses import dataclass

from torch import nn

from coseglib.backbones import build_backbone
from coseglib.errors import CosegError
from coseglib.models.semantic_attention import CA, CSA, FCA


@dataclass(frozen=True)
class Method:
    """model: its class, built as `model(backbone, variant, input_size)`; paper: a key of `data/reported.csv`."""

    model: type[nn.Module]
    paper: str


METHODS = {
    "ca": Method(CA, "chen2018"),
    "fca": Method(FCA, "chen2018"),
    "csa": Method(CSA, "chen2018"),
}


def build_model(
    method: str,
    backbone: str,
    variant: str = "paper",
    input_size: int = 224,
    weights: str | None = "imagenet",
    weights_root=None,
    origin: str | None = None,
) -> nn.Module:
    """A model by its method's name on a backbone, in training mode. Raises CosegError for names that do not exist.

    weights, weights_root, origin  the backbone's, see `coseglib.backbones.build_backbone`
    """
    if method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    net = build_backbone(backbone, weights, weights_root, origin)
    try:
        return METHODS[method].model(net, variant, input_size)
    except ValueError as error:
        raise CosegError(f"{method}: {error}") from error
