"""Learning the workbook's generator (`coseglib.models.clusters`): the frozen features once, then a start from clusters.

The features of all photographs, on the group's principal axes, are computed once; an epoch costs a second. Nothing here
looks at a mask. Where a figure was chosen: `reports/trials.md`, 24, on made groups whose masks are known because they
were made, and by nothing else.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo
from coseglib.models import build_model
from coseglib.models.clusters import Prototypes, evidence, spread
from coseglib.models.contract import Terms
from coseglib.models.multiclass import FeatureExtractor, MultiClass
from coseglib.unsupervised.configuration import OnlineConfig, check_classes
from coseglib.unsupervised.jobs import CHUNK, LearningJob, inputs_of, normalise_on

LEAST = 0.05  # of the widest axis' spread: what spreads less is noise, and is not to be enlarged
SAMPLE = 20_000  # positions that the axes are found by, and at most twice as many that are clustered
FIRM = 5  # power of the evidence by which a position counts for a class: few that are sure, not many that may be


def axes_of(positions: Tensor, count: int, centred: bool = True, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (P, D) of the frozen map -> the centre (D,), axes (count, D) and offset (count,) that F is made by.

    Half whitened: each principal axis is divided by the root of its standard deviation. Axes beyond the positions' own
    number are 0. centred  False: positions keep their mean, as a trial
    """
    x = positions.float()
    centre = x.mean(dim=0) if centred else torch.zeros(x.shape[1])
    x = F.normalize(x - centre, dim=1).numpy()
    axes, offset = torch.zeros(count, x.shape[1]), torch.zeros(count)
    if len(x) < 2 or not np.ptp(x, axis=0).any():  # all alike
        return centre, axes, offset
    found = PCA(min(count, *x.shape), svd_solver="randomized", random_state=seed).fit(x)
    deviation = np.sqrt(found.explained_variance_)
    scale = 1 / np.sqrt(np.maximum(deviation, LEAST * deviation.max() + 1e-6))
    axes[: len(scale)] = torch.from_numpy(found.components_ * scale[:, None])
    if centred:
        offset[: len(scale)] = torch.from_numpy(scale * (found.components_ @ found.mean_))
    return centre, axes, offset


def clusters_of(positions: np.ndarray, weights: np.ndarray, count: int, seed: int, tries: int = 4) -> Tensor:
    """The `count` centres of a weighted k-means, unit length: positions (P, A), weights (P,) -> (count, A).

    tries  the most compact of so many
    """
    distinct = len(np.unique(positions.round(4), axis=0))
    found = KMeans(min(count, distinct), n_init=tries, random_state=seed).fit(positions, sample_weight=weights + 1e-6)
    centres = torch.from_numpy(found.cluster_centers_).float()
    more = torch.randn(count - len(centres), positions.shape[1], generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.cat([centres, more]), dim=1)


def halved(maps: Tensor) -> Tensor:
    """(P, C, h, w) -> (P, C, h/2, w/2): the means of 2 × 2 positions. Attention then costs a sixteenth."""
    return F.avg_pool2d(maps, 2, ceil_mode=True)


def _positions(attended: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """F' (n, A, h, w), s (n, h, w) -> (P, A) and (P,), of at most twice SAMPLE positions."""
    x, s = attended.movedim(1, -1).flatten(0, 2), s.flatten()
    step = max(1, len(x) // (2 * SAMPLE))
    return x[::step], s[::step]


class ClusterJob(LearningJob):
    """A group's frozen features in memory, A numbers a position, and the generator that starts from their clusters."""

    def __init__(
        self,
        photos: Sequence[Tensor | Photo],
        classes: int,
        config: OnlineConfig,
        described: Tensor | None = None,
    ):
        """described  `self.described` of another job on the same photographs and frozen maps, to save its time"""
        if not photos:
            raise CosegError("no photographs: a group needs at least one")
        check_classes(classes)
        self.config, self.classes, self.count = config, classes, len(photos)
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(best if config.device == "auto" else config.device)
        self.bfloat16 = precision_of(config.precision, self.device) == "bf16-mixed"
        self.weights = "imagenet" if config.pretrained else None
        self.extractor = FeatureExtractor
        self.base = self._base(photos)
        self.described = described = self._described(photos) if described is None else described
        step = max(1, described.shape[0] * described[0, 0].numel() // SAMPLE)
        positions = described.movedim(1, -1).flatten(0, 2)[::step]
        for name, value in zip(
            ("centre", "axes", "offset"), axes_of(positions, config.axes, config.centred, config.seed), strict=True
        ):
            getattr(self.base, name).copy_(value)
        parts = [part.to(self.device) for part in described.split(CHUNK)]
        features = [self.base.project(part) for part in parts]
        self.evidence = torch.cat([evidence(*both) for both in zip(parts, features, strict=True)])  # (n, h, w)
        self.features = torch.cat(features)  # F  (n, A, h, w)

    def _base(self, photos: Sequence[Tensor | Photo]) -> MultiClass:
        """The model before its axes are known and its start is made."""
        config = self.config
        names = ("self_attention", "mutual_attention", "stride", "layer", "axes", "backgrounds", "evident")
        options = {"classes": self.classes, **{name: getattr(config, name) for name in names}}
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = build_model(
                "multiclass", config.backbone, "workbook", config.input_size, self.weights, options=options
            )
            if not config.pretrained:
                normalise_on(model.backbone, inputs_of(photos, config.input_size))
        model.post = config.post
        return model.to(self.device, memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def _described(self, photos: Sequence[Tensor | Photo]) -> Tensor:
        """f of each photograph, (n, D, h, w) in half precision on the CPU: 4 MB a photograph at 512 pixels."""
        parts = [photos[start : start + CHUNK] for start in range(0, len(photos), CHUNK)]
        with self.autocast():
            some = [
                self.base.encode(inputs_of(part, self.config.input_size).to(self.device))[-1].half() for part in parts
            ]
        return torch.cat(some).cpu()

    def look_for(self, classes: int) -> None:
        """Another K from now on."""
        check_classes(classes)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            self.base.decoder = Prototypes(self.config.axes, classes, self.config.backgrounds).to(self.device)
        self.base.classes = self.classes = classes
        self.base.options = {**self.base.options, "classes": classes}

    def generator(self) -> MultiClass:
        """A new one on the job's frozen network, the same every time: its prototypes are clusters, or random."""
        model = copy.deepcopy(self.base, {id(self.base.backbone): self.base.backbone})
        if self.config.start == "clusters":
            self.start_from_clusters(model)
        return model

    @torch.no_grad()
    def attended(self, model: MultiClass) -> tuple[Tensor, Tensor]:
        """F' (n, A, h, w) of all, and s (n, h, w): the mean of e and of the others' votes, if any.

        Without evidence s is ½ everywhere.
        """
        found, s = [], []
        for numbers in torch.arange(self.count).split(model.group_size):
            f, e = self.features[numbers][None], self.evidence[numbers][None]
            x, a = model.attend(f, None, e)
            found.append(x[0])
            s.append((e if a is None else (e + spread(a)) / 2)[0])
        s = torch.cat(s)
        return torch.cat(found).cpu(), (s if self.config.evident else torch.full_like(s, 0.5)).cpu()

    @torch.no_grad()
    def start_from_clusters(self, model: MultiClass) -> None:
        """The classes' prototypes: clusters of what is evident as an object; the background's: of what is not.

        Of several clusterings the one whose pairs have the lowest loss: the most compact is often another.
        """
        x, s = (maps.numpy() for maps in _positions(*self.attended(model)))
        background = clusters_of(x, 1 - s, self.config.backgrounds, self.config.seed)
        best, lowest = None, math.inf
        for number in range(self.config.starts):
            classes = clusters_of(x, s**FIRM, self.classes, 1000 * self.config.seed + number, tries=1)
            model.decoder.weight.copy_(torch.cat([background, classes]))
            sets = torch.arange(self.count).split(model.group_size)
            loss = sum(float(self.losses(model, some.tolist())["co_attention"]) for some in sets)
            if loss < lowest:
                best, lowest = model.decoder.weight.clone(), loss
        model.decoder.weight.copy_(best)

    def prototypes(self, attended: Tensor, s: Tensor, classes: int, seed: int) -> Tensor:
        """F' (n, A, h, w) and s (n, h, w) of some photographs -> (Q + classes, A), the background's first."""
        x, s = (maps.numpy() for maps in _positions(attended, s))
        background = clusters_of(x, 1 - s, self.config.backgrounds, seed)
        return torch.cat([background, clusters_of(x, s**FIRM, classes, seed)])

    def logits(self, model: MultiClass, numbers: list[int]) -> Tensor:
        return model.generate(self.features[numbers][None], self.evidence[numbers][None]).logits

    def losses(self, model: MultiClass, numbers: list[int]) -> Terms:
        """The terms of one batch's loss, see `MultiClass.loss`: f is √A F, whose distances are of unit vectors."""
        f, e = (
            F.normalize(halved(self.features[numbers]), dim=1)[None],
            halved(self.evidence[numbers][:, None])[None, :, 0],
        )
        described = f.shape[2] ** 0.5 * f
        config = self.config
        return model.loss(model.generate(f, e), None, self.extractor, config.balance, config.border, described)
