"""The registry: a method's name, its model, what kind of model it is. A further paper is one file and one line here."""

import inspect
from dataclasses import dataclass

from torch import nn

from coseglib.core.errors import CosegError
from coseglib.models.backbones import build_backbone
from coseglib.models.dual_cross import DCNet
from coseglib.models.multiclass import MultiClass
from coseglib.models.pyramid_correlation import PFCC
from coseglib.models.semantic_attention import CA, CSA, FCA
from coseglib.models.spatial_semantic import SSNM


@dataclass(frozen=True)
class Method:
    """model: its class, built as model(backbone, variant, input_size, **options); paper: a key of data/reported.csv.

    online: it learns without masks on the group that it segments (`coseglib.unsupervised.learner`), not in `coseglib.training.loop`.
    """

    model: type[nn.Module]
    paper: str
    online: bool = False

    @property
    def options(self) -> dict[str, object]:
        """What the model's constructor takes besides backbone, variant and input_size, and their defaults."""
        known = inspect.signature(self.model).parameters.values()
        return {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}


METHODS = {
    "ca": Method(CA, "chen2018"),
    "fca": Method(FCA, "chen2018"),
    "csa": Method(CSA, "chen2018"),
    "ssnm": Method(SSNM, "zhang2020"),
    "pfcc": Method(PFCC, "chen2023"),
    "dcnet": Method(DCNet, "li2021dcnet"),
    "multiclass": Method(MultiClass, "multiclass-thesis", online=True),
}


def build_model(
    method: str,
    backbone: str,
    variant: str = "paper",
    input_size: int = 224,
    weights: str | None = "imagenet",
    weights_root=None,
    origin: str | None = None,
    options: dict | None = None,
) -> nn.Module:
    """A model by its method's name on a backbone, in training mode. Raises CosegError for names that do not exist.

    weights, weights_root, origin  the backbone's, see `coseglib.models.backbones.build_backbone`
    options  what the method's constructor takes besides; kept as `model.options`, which a checkpoint's header holds
    """
    if method not in METHODS:
        raise CosegError(f"{method}: no such method; one of {', '.join(METHODS)}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in (options or {}).items()}
    known = METHODS[method].options
    for name in given:
        if name not in known:
            raise CosegError(f"{method}: no option {name}; {', '.join(known) or 'it has none'}")
    net = build_backbone(backbone, weights, weights_root, origin)
    try:
        model = METHODS[method].model(net, variant, input_size, **given)
    except (TypeError, ValueError) as error:
        raise CosegError(f"{method}: {error}") from error
    model.options = given
    return model
