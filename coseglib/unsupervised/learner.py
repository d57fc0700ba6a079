"""Online optimisation: a generator learns on the very photographs that it is to segment; no masks, only K.

    from coseglib.unsupervised.learner import co_segment
    found = co_segment(photos, classes=2, config=load_online("cpu"), progress=print)
    found.labels()                     # a label map for each photograph, 0 … K, at its own size

Where this differs from the thesis (see also `coseglib.models.multiclass`)
  * The learning rate's exponent is lost: a short list is tried, and the loss alone chooses. Adam, weight decay 5e-4,
    mini-batches of three and ten epochs are as printed; the early stop by the loss, and keeping the weights of the
    epoch of the lowest, are ours. The last mini-batch of an epoch is filled up from its first images.
  * The generator's batch normalisation (VGG16 has none) keeps ImageNet's averages: three images are too few.
  * Label maps are made in chunks of `together` images that attend each other, overlapping at the end.
  * The cpu profile is not the paper's: small backbone and input, larger mini-batches, `masking="features"`, `balance`,
    `border`, and a faster γ. Its figures are the workbook's, and its table's rows name the profile.

`coseg train` and `coseg segment` with `--method multiclass` are `train_on_group` and `learn` of
`coseglib.unsupervised.checkpoint`; `coseg evaluate` is `coseglib.evaluation.multiclass_tables`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from coseglib.answering.crf import CRF, labels_of
from coseglib.core.errors import CosegError
from coseglib.data.record import Photo
from coseglib.models.multiclass import MultiClass
from coseglib.unsupervised.configuration import OnlineConfig
from coseglib.unsupervised.job import LearningJob, pixels_of


@dataclass
class CoSegmentation:
    """A group, co-segmented.

    generator      trained on the group, in evaluation mode
    maps           its soft-max maps (n, K+1, S, S) in [0, 1], channel 0 the background
    log            a row an epoch: epoch, loss (mean over pairs and classes), seconds
    learning_rate  that was used
    trials         learning_rate, epochs, loss of each that was tried; empty where the rate was given
    """

    photos: Sequence[Tensor | Photo]
    config: OnlineConfig
    generator: MultiClass
    maps: Tensor
    log: pd.DataFrame
    learning_rate: float
    trials: pd.DataFrame
    seconds: float

    def labels(self, post: str | None = None, crf: CRF | None = None) -> list[Tensor]:
        """A label map for each photograph, uint8 (H, W), 0 … K, at its own size.

        post  "crf" or "argmax"; None: the configuration's. crf: its parameters, None: the configuration's
        """
        post, crf = post or self.config.post, crf or self.config.crf
        return [labels_of(pixels_of(p), maps, post, crf) for p, maps in zip(self.photos, self.maps, strict=True)]


def _silent(text: str) -> None:
    pass


def _chosen_rate(job: LearningJob, say: Callable[[str], None]) -> tuple[float, pd.DataFrame]:
    rows = []
    for rate in job.config.learning_rates:
        log = job.optimise(
            job.generator(), rate, job.config.trial_epochs, lambda text, rate=rate: say(f"trying {rate:g}: {text}")
        )
        rows.append({"learning_rate": rate, "epochs": len(log), "loss": log.loss.iloc[-1]})
    trials = pd.DataFrame(rows)
    if not trials.loss.notna().any():
        tried = ", ".join(f"{r:g}" for r in job.config.learning_rates)
        raise CosegError(f"learning rates {tried}: the loss is not finite at any of them; give smaller ones")
    rate = float(trials.learning_rate[trials.loss.idxmin()])
    say(f"learning rate {rate:g}: the lowest loss after {job.config.trial_epochs} epochs")
    return rate, trials


def choose_learning_rate(
    photos: Sequence[Tensor | Photo],
    classes: int,
    config: OnlineConfig,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> tuple[float, pd.DataFrame]:
    """The rate of `config.learning_rates` whose loss is lowest after `config.trial_epochs`; no mask is looked at.

    -> the rate, and a row for each that was tried: learning_rate, epochs, loss (NaN where it was not finite).
    Raises CosegError where none stays finite, and as `co_segment` does.
    """
    return _chosen_rate(LearningJob(photos, classes, config, weights_root), progress or _silent)


def co_segment(
    photos: Sequence[Tensor | Photo],
    classes: int = 2,
    config: OnlineConfig | None = None,
    progress: Callable[[str], None] | None = None,
    weights_root=None,
) -> CoSegmentation:
    """Optimise a generator on the photographs themselves, and segment them with it.

    photos    uint8 RGB (3, H, W) each, of any sizes, or `Photo`s; one or more. Masks are never read
    classes   K, how many classes they have in common; it may be more than there are
    progress  called with lines of text: epoch, loss, time left
    The same photographs, configuration and machine give the same result; torch's generator is left as it was.
    Raises CosegError for no photographs, a K below 1, missing weights, or a loss that is not finite.
    """
    began, say, config = time.perf_counter(), progress or _silent, config or OnlineConfig()
    job = LearningJob(photos, classes, config, weights_root)
    rate, trials = config.learning_rate, pd.DataFrame(columns=["learning_rate", "epochs", "loss"])
    if rate is None:
        rate, trials = _chosen_rate(job, say)
    model = job.generator()
    log = job.optimise(model, rate, config.epochs, say)
    if not log.loss.notna().all():
        raise CosegError(f"learning rate {rate:g}: the loss is not finite in epoch {len(log)}; give a smaller one")
    maps = job.maps(model)
    return CoSegmentation(photos, config, model, maps, log, rate, trials, time.perf_counter() - began)
