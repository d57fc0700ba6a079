"""Which classes a model has learned from, whatever their sets call them."""

from collections.abc import Collection

from coseglib.core.errors import CosegError
from coseglib.data import synthetic
from coseglib.data.cache import SAME
from coseglib.data.record import Group
from coseglib.data.sets import msrc, voc

# What other sets call a class of VOC, lower case: PASCAL's folders, Internet, COCO.
VOC_NAMES = {
    "aero": "aeroplane", "airplane": "aeroplane", "couch": "sofa", "mbike": "motorbike", "monitor": "tvmonitor",
    "motorcycle": "motorbike", "plant": "pottedplant", "table": "diningtable",
}  # fmt: skip


def _common_name(dataset: str, name: str) -> str:
    """One name for what two sets of photographs call differently; a drawn flower is another kind than a flower."""
    if dataset == "synthetic":
        return f"synthetic/{name}"
    return VOC_NAMES.get(name.lower(), SAME.get(name.lower(), name.lower()))


def classes_trained_on(model) -> frozenset[str]:
    """The classes whose masks a model has learned from, by the card of its checkpoint; drawn ones as "synthetic/…".

    Raises CosegError for a model without a card, or trained on data whose classes are not listed here.
    """
    training = model.card.get("training", {})
    data, away = training.get("data"), msrc.SURROUNDINGS - set(msrc.SCENERY if training.get("scenery") else ())
    known = {"real": (*voc.CLASSES, *msrc.CLASSES), "synthetic": synthetic.CATEGORIES}
    if data not in known:
        raise CosegError(f"{type(model).__name__}: trained on {data or 'nothing'}; known are {', '.join(known)}")
    return frozenset(_common_name(data, name) for name in known[data] if name not in away)


def seen_in_training(group: Group, trained_on: Collection[str]) -> bool:
    """Did training hold masks of the group's class? trained_on: `classes_trained_on`.

    By its name, whatever its set calls it. The full iCoseg's groups are no classes ("Red Sox Players"): never seen.
    """
    return any(_common_name(group.dataset, target) in trained_on for target in group.targets)
