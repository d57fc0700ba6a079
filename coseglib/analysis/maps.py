"""Seeing why: heat maps of what a model looks at, and what its channels know of classes. Maps and numbers, no drawing.

| question                                         | function                | of models                          |
|--------------------------------------------------|-------------------------|------------------------------------|
| what in the images speaks for the foreground?    | `grad_cam`              | all                                |
| what in an image switches one channel on?        | `channel_cam`           | ca, fca, csa                       |
| where does a model look by itself?               | `spatial_maps`          | csa, ssnm, multiclass              |
| what does one position find in the partner?      | `match`                 | dcnet, pfcc, multiclass            |
| which channels matter, in every image of groups? | `channel_table`         | ca, fca, csa (alpha), ssnm (gamma) |
| do they tell classes apart, and which of them?   | `separation`, `selectivity` | any vectors                    |

`coseglib.figures.plots` draws them: `show_heat` the maps, `show_points` and `show_channels` the rest. Models are to be in
evaluation mode. Images are float (N, 3, H, W) in [0, 1], H and W multiples of 32, as `resize_to_input` makes them.

Grad-CAM (Selvaraju et al., ICCV 2017)  L = ReLU(Σ_k a_k f_k), a_k the mean over the positions of dy/df_k, for a map f
of C channels and a number y. It tells which channels y rests on and where these are, and nothing that speaks against y.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from coseglib.answering.inference import resize_to_input
from coseglib.core.errors import CosegError
from coseglib.data import synthetic
from coseglib.data.cache import SAME
from coseglib.data.record import VOID, Group
from coseglib.data.sets import msrc, voc
from coseglib.models import METHODS
from coseglib.models.dual_cross import DCNet, correlation_of
from coseglib.models.multiclass import MultiClass
from coseglib.models.pyramid_correlation import PFCC

# What other sets call a class of VOC, lower case: PASCAL's folders, Internet, COCO.
VOC_NAMES = {
    "aero": "aeroplane", "airplane": "aeroplane", "couch": "sofa", "mbike": "motorbike", "monitor": "tvmonitor",
    "motorcycle": "motorbike", "plant": "pottedplant", "table": "diningtable",
}  # fmt: skip

# Grad-CAM -------------------------------------------------------------------------------------------------------------


@contextmanager
def _outputs(*modules: nn.Module) -> Iterator[list]:
    """What modules return, call by call, still tied by gradients to all that is computed from it."""
    found: list = []
    handles = [m.register_forward_hook(lambda module, given, output: found.append(output)) for m in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _maps(model) -> Iterator[list[list[Tensor]]]:
    """The backbone's maps, of each of its calls; strides 2 and 4 have gradients here, too."""
    if not hasattr(model, "backbone"):
        raise CosegError(f"{type(model).__name__}: has no backbone to look into; give a model of the registry")
    learns, model.backbone.stem_learns = model.backbone.stem_learns, True
    try:
        with _outputs(model.backbone) as calls:
            yield calls
    finally:
        model.backbone.stem_learns = learns


def _level(model, stride: int) -> int:
    """Which of the backbone's maps has that stride; the deepest, where two have."""
    strides = model.backbone.strides
    if stride not in strides:
        raise ValueError(f"stride {stride}: one of {', '.join(map(str, dict.fromkeys(strides)))}")
    return max(i for i, s in enumerate(strides) if s == stride)


def _cam(y: Tensor, f: Tensor) -> Tensor:
    """L = ReLU(Σ_k a_k f_k). y a number, f (N, C, h, w) -> (N, h, w), 0 and above."""
    (gradient,) = torch.autograd.grad(y, f, materialize_grads=True)
    a = gradient.mean(dim=(-2, -1), keepdim=True)  # (N, C, 1, 1)
    return (a * f).sum(dim=1).relu().detach().float()


def grad_cam(model, images: Tensor, of: int, stride: int = 32, label: int = 1, pixels: Tensor | None = None) -> Tensor:
    """Which places of a group's images speak for the foreground of one of them. (N, 3, H, W) -> (N, h, w).

    y is the mean over the pixels of image `of` of the logit of `label` minus the background's, as the model answers
    when it is given these N images as one group. Row `of` tells what of the image itself counts; the other rows what
    of its partners does, in the same unit: a model that does not ask its partners has zeros there.

    of      place of the image in the group, 0 … N − 1
    stride  of the backbone's map: 2, 4, 8, 16 or 32; gradients through all that is made of it, deeper maps too
    label   1, or up to K for a multi-class model
    pixels  bool (H, W): those that y is the mean of; None: all
    Values are 0 and above, in units of y, and comparable within one call. Raises ValueError for an image, stride or
    label that there is not, or no pixels; CosegError for a model without a backbone.
    """
    if not 0 <= of < len(images):
        raise ValueError(f"image {of} of a group of {len(images)}")
    with _maps(model) as calls, torch.enable_grad():
        level = _level(model, stride)
        logits = model(images.detach().clone().requires_grad_()[None]).logits[0, of].float()  # (K, H, W)
        if not 1 <= label < len(logits):
            raise ValueError(f"label {label}: 1 to {len(logits) - 1}")
        odds = logits[label] - logits[0]
        if pixels is not None:
            odds = odds[pixels.to(odds.device)]
            if not odds.numel():
                raise ValueError("pixels: none is chosen")
        return _cam(odds.mean(), calls[-1][level])


def channel_cam(model, images: Tensor, channel: int, stride: int = 32) -> Tensor:
    """Which places switch one channel of the attention on, Chen et al. 2018, figure 1. (N, 3, H, W) -> (N, h, w).

    y is the log-odds of alpha_c, log alpha_c / (1 − alpha_c): what the sigmoid of eq. (2) is taken of. So a channel
    that is fully on or off has a map, too. Each image's map is its own; all are in the same unit.

    channel  0 … D − 1, a place in alpha; stride as for `grad_cam`
    Raises CosegError for models without channel attention, ValueError for a channel or stride that there is not.
    """
    if not hasattr(model, "attention"):
        raise CosegError(f"{type(model).__name__}: has no channel attention; {_offer('alpha')} have")
    if not 0 <= channel < model.context_size:
        raise ValueError(f"channel {channel}: 0 to {model.context_size - 1}")
    with _maps(model) as calls, _outputs(*model.attention_layers) as scores, torch.enable_grad():
        level = _level(model, stride)
        model.attention(model.encode(images.detach().clone().requires_grad_()))
        odds = torch.cat(scores, dim=1)[:, channel].float()  # W_c GAP(f) + b_c  (N,)
        return _cam(odds.sum(), calls[-1][level])


# Maps that models make themselves -------------------------------------------------------------------------------------


class Maps(NamedTuple):
    """values (N, h, w), what they are, and the ends of the colour scale on which they are to be shown."""

    values: Tensor
    unit: str
    limits: tuple[float, float]


def _offer(extra: str) -> str:
    return ", ".join(name for name, method in METHODS.items() if extra in method.model.EXTRAS)


@torch.no_grad()
def spatial_maps(model, images: Tensor) -> Maps:
    """Where a model looks in the images of one group, (N, 3, H, W), on one scale for all N.

    CSA         alpha^s, eqs. (10), (11), at stride 32, in (0, 1)
    SSNM        √M' · s, the leading eigenvector over all positions of the group, as it is added to the features
                (`S`): ±1 for two clear clusters of one size, positive on the foreground
    MultiClass  a, what the other images' positions choose, at stride 32, in [½, 1)
    Raises CosegError for other models, and for ablations that lack the map.
    """
    output = model(images[None])
    if "spatial" in output.extras and "points" in output.extras:
        values = (output.extra("points").sqrt()[..., None, None] * output.extra("spatial"))[0]
        most = float(values.abs().max())
        return Maps(values, "√M' · s (foreground above 0)", (-most, most))
    if "spatial" in output.extras:
        return Maps(output.extra("spatial")[0, :, 0], "alpha^s (between 0 and 1)", (0.0, 1.0))
    if "foreground" in output.extras:
        return Maps(output.extra("foreground")[0], "a (between ½ and 1)", (0.5, 1.0))
    raise CosegError(f"{type(model).__name__}: has no spatial map; {_offer('spatial')} have, multiclass with MA too")


def _match_cross(model: DCNet, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    return correlation_of(model, model.encode(query), model.encode(answer), cell, stride)[0]


def _match_pyramid(model: PFCC, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    base, other = model.encode(query)[-1], model.encode(answer)[-1]  # f'  (1, D, h, w)
    (h, w), (row, column) = base.shape[-2:], cell
    total = torch.zeros(other.shape[-2:], device=other.device)
    for kernel in model.pyramid(base, other):  # (1, D, k, k)
        k = kernel.shape[-1]
        products = (kernel[0] * base[0, :, row, column].float()[:, None, None]).mean(dim=0)  # (k, k)
        place = k // 2 - torch.arange(k, device=products.device)  # where the kernel's centre is, from `cell`
        inside = ((row + place >= 0) & (row + place < h))[:, None] & ((column + place >= 0) & (column + place < w))
        total += F.interpolate((products * inside)[None, None], size=total.shape, mode="bilinear")[0, 0]
    return total / len(model.kernels)


def _match_mutual(model: MultiClass, query: Tensor, answer: Tensor, cell: tuple[int, int], stride: int) -> Tensor:
    layer, anchor, reference = model.mutual_attention, model.encode(query)[-1], model.encode(answer)[-1]
    q, k = layer.query(reference).flatten(2).mT[0], layer.key(anchor).flatten(2).mT[0]  # (M, C')
    votes = (q.float() @ k.float().mT).softmax(dim=-1)  # a row of 1 for each of the reference's positions
    return votes[:, cell[0] * anchor.shape[-1] + cell[1]].unflatten(0, reference.shape[-2:])


def _ways(model) -> tuple:
    """How a model matches positions, and the strides that it does so at, the finest last."""
    if isinstance(model, DCNet):
        return _match_cross, model.strides
    if isinstance(model, PFCC) and model.kernels:
        return _match_pyramid, (16,)
    if isinstance(model, MultiClass) and model.mutual_attention is not None:
        return _match_mutual, (32,)
    raise CosegError(f"{type(model).__name__}: compares no positions (as given); dcnet, pfcc and multiclass with MA do")


@torch.no_grad()
def match(model, query: Tensor, answer: Tensor, at: tuple[float, float], stride: int | None = None) -> Tensor:
    """What one position of the query image meets in the answer image. query, answer (3, H, W) -> (h, w).

    DCNet       how much of each position of the answer the position collects, over all loops: sums to 1, without the
                gates and the channels' part (`models.dual_cross.correlation_of`)
    PFCC        the products of the position's features with each cell of the answer, as eq. (3) adds them up: mean over
                the channels, and over the kernels, each enlarged to the answer's map; any sign, 0 for cells that
                never lie on the position
    MultiClass  which share of its vote each position of the answer gives to the position, in [0, 1]: the column of
                softmax(query(F_answer) key(F_query)ᵀ) whose sum v decides about a

    at      (y, x) in shares of the query's height and width, [0, 1): a click, whatever the picture's size
    stride  of the maps: one of DCNet's, 16 for PFCC, 32 for MultiClass; None: the finest that there is
    Raises CosegError for models that compare no positions, ValueError for a place or stride that there is not.
    """
    way, strides = _ways(model)
    stride = strides[-1] if stride is None else stride
    if stride not in strides:
        raise ValueError(f"stride {stride}: {type(model).__name__} matches at {', '.join(map(str, strides))}")
    if not (0 <= at[0] < 1 and 0 <= at[1] < 1):
        raise ValueError(f"at {at}: (y, x) in shares of height and width, from 0 to below 1")
    cell = int(at[0] * (query.shape[-2] // stride)), int(at[1] * (query.shape[-1] // stride))
    return way(model, query[None], answer[None], cell, stride).float()


# Channels of many images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelTable:
    """What the channels of n images say; row i of all three is the same image.

    rows        dataset, class (the group's name), photo (its name), seen (did training hold the class?)
    importance  float32 (n, D): alpha, in [0, 1] (rounding reaches the ends), or gamma
    pooled      float32 (n, C): the mean over the positions of the map that the importance is computed from
    """

    rows: pd.DataFrame
    importance: np.ndarray
    pooled: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """(n,) names."""
        return self.rows["class"].to_numpy(str)

    def table(self) -> pd.DataFrame:
        """The rows with the importance beside them, its columns named 0 … D − 1: to be written to a file."""
        return pd.concat([self.rows, pd.DataFrame(self.importance)], axis=1)


def single_class(groups: Sequence[Group], most: int | None = None, seed: int = 0) -> list[Group]:
    """The groups without the photographs that stand in several of them: an image of two classes has no one colour.

    most  photographs a group, drawn by the seed; None: all. Groups with fewer than two are left out.
    """
    times: dict[tuple[str, str], int] = {}
    for photo in (p for group in groups for p in group.photos):
        times[photo.dataset, photo.name] = times.get((photo.dataset, photo.name), 0) + 1
    kept = []
    for group in groups:
        photos = [p for p in group.photos if times[p.dataset, p.name] == 1]
        drawn = np.random.default_rng(seed).permutation(len(photos))[:most]
        if len(drawn) > 1:
            kept.append(replace(group, photos=tuple(photos[i] for i in sorted(drawn))))
    return kept


def _kind(dataset: str, name: str) -> str:
    """One name for what two sets of photographs call differently; a drawn flower is another kind than a flower."""
    if dataset == "synthetic":
        return f"synthetic/{name}"
    return VOC_NAMES.get(name.lower(), SAME.get(name.lower(), name.lower()))


def classes_trained_on(model) -> frozenset[str]:
    """The classes whose masks a model has learned from, by the card of its checkpoint; drawn ones as "synthetic/…".

    Raises CosegError for a model without a card, or trained on data whose classes are not listed here.
    """
    data = getattr(model, "card", {}).get("training", {}).get("data")
    known = {"real": (*voc.CLASSES, *msrc.CLASSES), "synthetic": synthetic.CATEGORIES}
    if data not in known:
        raise CosegError(f"{type(model).__name__}: trained on {data or 'nothing'}; known are {', '.join(known)}")
    return frozenset(_kind(data, name) for name in known[data] if name not in msrc.SURROUNDINGS)


def seen(group: Group, trained_on: Collection[str]) -> bool:
    """Did training hold masks of the group's class? trained_on: `classes_trained_on`.

    By its name, whatever its set calls it. The full iCoseg's groups are no classes ("Red Sox Players"): never seen.
    """
    return any(_kind(group.dataset, target) in trained_on for target in group.targets)


def hide_object(image: Tensor, mask: Tensor) -> Tensor:
    """The box around the foreground filled with the mean colour around it: the scene without the object.

    image uint8 (3, H, W), mask uint8 (H, W), 0 background, 255 void -> a new image. No foreground: as it was.
    """
    ys, xs = torch.nonzero((mask != 0) & (mask != VOID), as_tuple=True)
    image = image.clone()
    if len(ys):
        box = slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1)
        around = torch.ones(mask.shape, dtype=torch.bool)
        around[box] = False
        colour = image[:, around if around.any() else ~around].float().mean(dim=1).round().to(image.dtype)
        image[:, box[0], box[1]] = colour[:, None, None]
    return image


@torch.no_grad()
def channel_importance(model, images: Tensor) -> tuple[Tensor, Tensor]:
    """How much each channel matters, by each image alone. (N, 3, H, W) -> (N, D), and the pooled map (N, C).

    CA, FCA, CSA  alpha, eqs. (1), (2), in (0, 1)      SSNM  gamma of the image as a group of its own, eq. (3)
    The pooled map is what these start from: the mean over the positions of the stride-32 map, after the embedding
    that a backbone has in the workbook variant. Raises CosegError for models that weigh no channels.
    """
    with _maps(model) as calls:
        if hasattr(model, "attention"):
            importance = model.attention(model.encode(images))
        elif "gamma" in getattr(model, "EXTRAS", ()):
            importance = model(images[:, None]).extra("gamma")[:, 0]  # N groups of one
        else:
            raise CosegError(f"{type(model).__name__}: weighs no channels; {_offer('alpha')} and {_offer('gamma')} do")
        pooled = model.backbone.embed(calls[-1][-1]).float().mean(dim=(-2, -1))
    return importance.float().cpu(), pooled.cpu()


def channel_table(
    model, groups: Sequence[Group], trained_on: Collection[str] = (), hidden: bool = False, batch: int = 8
) -> ChannelTable:
    """`channel_importance` of every image of some groups, in their order; n is the sum of their sizes.

    trained_on  classes, from `classes_trained_on`; a group is seen where its target is one of them
    hidden      True: of the images with their objects hidden (`hide_object`); the groups need masks
    batch       images that go through the network at once; memory does not grow with n
    Raises CosegError for no groups, models that weigh no channels, photographs that cannot be read or have no mask.
    """
    members = [(group, i) for group in groups for i in range(len(group))]
    if not members:
        raise CosegError("no groups: there is no image to describe")
    device, found = next(model.parameters()).device, []
    for start in range(0, len(members), batch):
        inputs = []
        for group, i in members[start : start + batch]:
            image = group.photos[i].image()
            image = hide_object(image, group.mask(i)) if hidden else image
            inputs.append(resize_to_input(image, model.input_size))
        found.append(channel_importance(model, torch.stack(inputs).to(device)))
    rows = [
        {
            "dataset": group.dataset,
            "class": group.name,
            "photo": group.photos[i].name,
            "seen": seen(group, trained_on),
        }
        for group, i in members
    ]
    importance, pooled = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return ChannelTable(pd.DataFrame(rows), importance, pooled)


# Do vectors tell classes apart? ---------------------------------------------------------------------------------------


def flat(
    vectors: np.ndarray, how: str = "tsne", perplexity: float = 10, seed: int = 0, start: str = "pca"
) -> np.ndarray:
    """Vectors in the plane, to be looked at. (n, D) -> float (n, 2).

    how         "tsne": van der Maaten and Hinton 2008, distances without unit; "pca": the two directions of most
                variance, in the vectors' own unit, and the seed without effect
    perplexity  of t-SNE: about how many neighbours a point tries to keep, below n
    start       of t-SNE: "pca", or "random", from which the seed decides where islands end up
    """
    if how == "pca":
        return PCA(2, random_state=seed).fit_transform(vectors)
    if how != "tsne":
        raise ValueError(f"how {how!r}: 'tsne' or 'pca'")
    if not 0 < perplexity < len(vectors):
        raise ValueError(f"perplexity {perplexity}: must lie between 0 and {len(vectors)}, the number of vectors")
    return TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(vectors)


def nearest_classes(
    vectors: np.ndarray, classes: Sequence[str], neighbours: int = 5, metric: str = "euclidean"
) -> np.ndarray:
    """The class that most of a vector's nearest neighbours have, itself left out (leave-one-out). -> (n,) names.

    metric  of scikit-learn; "cosine" forgets how long vectors are. Ties go to the first name in alphabetical order.
    Raises ValueError where there are no more vectors than neighbours.
    """
    if len(vectors) <= neighbours:
        raise ValueError(f"{len(vectors)} vectors: must be more than {neighbours} neighbours")
    model = KNeighborsClassifier(neighbours, metric=metric, algorithm="brute")
    return cross_val_predict(model, vectors, np.asarray(classes), cv=LeaveOneOut())


def separation(
    vectors: np.ndarray, classes: Sequence[str], neighbours: int = 5, metric: str = "euclidean"
) -> dict[str, float]:
    """How far the vectors of a class lie together and apart from the others'. (n, D), n names -> two numbers.

    silhouette  mean of (b − a) / max(a, b): a the mean distance to the own class, b to the nearest other one; in
                [−1, 1], 0 where classes are no clusters
    accuracy    share of vectors whose class `nearest_classes` finds, in [0, 1]
    """
    found = nearest_classes(vectors, classes, neighbours, metric)
    silhouette = silhouette_score(vectors, np.asarray(classes), metric=metric)
    return {"silhouette": float(silhouette), "accuracy": float((found == np.asarray(classes)).mean())}


def selectivity(vectors: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Share of each channel's variance that lies between the classes' means, η². (n, D), n names -> (D,) in [0, 1].

    Classes that mean nothing still get (K − 1) / (n − 1) on average: compare with shuffled names. A channel that is
    the same in all images has 0.
    """
    names, vectors = np.asarray(classes), np.asarray(vectors, float)
    centre = vectors.mean(axis=0)
    between = sum((names == c).sum() * (vectors[names == c].mean(axis=0) - centre) ** 2 for c in np.unique(names))
    total = ((vectors - centre) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def class_means(vectors: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The mean vector of each class. (n, D), n names -> K rows by name, in their order of appearance, D columns."""
    return pd.DataFrame(vectors).groupby(np.asarray(classes), sort=False).mean()
