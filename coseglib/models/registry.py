"""The registry: a method's name and its class. A further paper is one file in this folder and one line here."""

from coseglib.core.errors import CosegError
from coseglib.models.backbones import build_backbone
from coseglib.models.contract import Model
from coseglib.models.dual_cross import DCNet
from coseglib.models.multiclass import MultiClass
from coseglib.models.pyramid_correlation import PFCC
from coseglib.models.semantic_attention import CA, CSA, FCA
from coseglib.models.spatial_semantic import SSNM

METHODS: dict[str, type[Model]] = {
    "ca": CA,
    "fca": FCA,
    "csa": CSA,
    "ssnm": SSNM,
    "pfcc": PFCC,
    "dcnet": DCNet,
    "multiclass": MultiClass,
}


def build_model(
    method: str,
    backbone: str,
    variant: str = "paper",
    input_size: int = 224,
    weights: str | None = "imagenet",
    origin: str | None = None,
    options: dict | None = None,
) -> Model:
    """A model by its method's name on a backbone, in training mode. Raises CosegError for names that do not exist.

    weights, origin  the backbone's, see `coseglib.models.backbones.build_backbone`
    options  what the method's constructor takes besides; kept as `model.options`, which a checkpoint's header holds
    """
    if method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
    known = METHODS[method].options
    if unknown := [name for name in given if name not in known]:
        raise CosegError(f"{method}: no option {unknown[0]}; {', '.join(known) or 'it has none'}")
    net = build_backbone(backbone, weights, origin=origin)
    try:
        model = METHODS[method](net, variant, input_size, **given)
    except (TypeError, ValueError) as error:
        raise CosegError(f"{method}: {error}") from error
    model.options = given
    return model
