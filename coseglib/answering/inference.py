"""From photographs to masks: groups in memory, streams of any length, folders, several processes.

`segment_group`   a group that can be gone through twice -> masks, one after the other
`segment_photos`  files and folders -> masks, overlays and a table on disk: sharded, resumable, a bad file costs itself

How a model answers for a group is its `kind`, and KINDS has one function for each. A *context* model meets the rest of
the group in D numbers only (Chen et al. 2018, algorithm 1): the first pass pools the images' attention, the second
decodes each image by the pool, and once more from nearer where the checkpoint asks for it (`coseglib.answering.second_look`). A
*partner* model compares each image with COMPARED others, the same few references for all, drawn by a seed; their
features are computed once. A *group* model sees a chunk of images at once; a chunk shorter than it was trained with is
filled up with references. For all three cost is linear in the number of images, and memory does not depend on it. A
model with `classes`, K, gives K+1 logits a pixel, and label maps in the place of masks.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from coseglib.answering.crf import POSTS, argmax_labels, crf_labels, post_of, refined
from coseglib.answering.second_look import LONGEST, looks, reduced, second_look
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.processes import clock, launch
from coseglib.data.images import SUFFIXES, image_size, read_image, write_jpg, write_png
from coseglib.data.record import Photo
from coseglib.models.checkpoints import FORMAT, read_tensors, write_tensors

BATCH = 8  # images that go through the network at once; chunks are cut by it, whatever the number of processes
COMPARED = 5  # partners that a partner model compares each image with
OVERLAY_SIDE = LONGEST  # longest side of an overlay, pixels; a second look and the CRF read the same picture
STRIP = 2**22  # pixels of a mask that are computed at once: 16 MiB of logits


POOLINGS = ("mean", "min")  # of a group's attention, context models only


# Between a photograph and the network -------------------------------------------------------------------------------


def resize_to_input(image: Tensor, size: int) -> Tensor:
    """uint8 (3, H, W) -> float (3, size, size) in [0, 1]: bilinear with antialiasing, the aspect ratio is not kept."""
    return tvf.resize(image, [size, size], antialias=True).float() / 255


def masks_from_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """logits (2, h, w) -> mask uint8 (H, W), 1 where the foreground's logit is above the background's.

    size  (H, W), the photograph's own
    Bilinear interpolation (align_corners=False) of both maps and then argmax, computed on their difference and in
    strips of rows: a mask of 12,000 × 9,000 needs its own 108 MB and a few more.
    """
    height, width = size
    difference = (logits[1] - logits[0]).float()  # (h, w)
    h = difference.shape[0]
    wide = F.interpolate(difference[None, None], size=(h, width), mode="bilinear")[0, 0]  # (h, W)
    source = ((torch.arange(height, device=wide.device) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    above = source.long()
    below = (above + 1).clamp(max=h - 1)
    share = (source - above)[:, None]  # of the row below
    mask = torch.empty(size, dtype=torch.uint8, device=wide.device)
    rows = max(1, STRIP // width)
    for y in range(0, height, rows):
        strip = slice(y, y + rows)
        mask[strip] = torch.lerp(wide[above[strip]], wide[below[strip]], share[strip]) > 0
    return mask


def label_map(picture: Tensor, logits: Tensor, size: tuple[int, int], post: str) -> Tensor:
    """logits (K+1, h, w) -> label map uint8 (H, W), 0 background, 1 … K, at a photograph's own size (H, W).

    picture  uint8 (3, H', W'), the photograph or a smaller copy, which the CRF looks at
    post     "argmax", at the own size, or "crf", at the picture's, and the nearest label from there
    """
    maps = logits.softmax(dim=0)
    if post == "argmax":
        return argmax_labels(maps, size)
    return F.interpolate(crf_labels(picture, maps)[None, None], size=size, mode="nearest")[0, 0]


def mask_of(model, picture: Tensor | None, logits: Tensor, size: tuple[int, int], post: str) -> Tensor:
    """A model's logits for one photograph -> its mask, or the label map of a multi-class model, uint8 (H, W).

    picture  uint8 (3, H', W'), see `second_look.reduced`; "argmax" does without
    post     "argmax" or "crf"
    """
    if model.online:
        return label_map(picture, logits, size, post)
    return contours(picture, logits[None], size)[0] if post == "crf" else masks_from_logits(logits, size)


def contours(picture: Tensor, logits: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Masks of one class by the dense CRF. logits (N, 2, h, w): N answers about one photograph; else as `mask_of`."""
    return [masks_from_logits(answer, size) for answer in refined(picture, logits)]


def foreground_score(logits: Tensor) -> float:
    """How sure a model is that something is common: mean of the 200 highest of 64² foreground probabilities."""
    p = logits.softmax(0)[1]
    p = F.interpolate(p[None, None], size=(64, 64), mode="bilinear", antialias=True)
    return float(p.flatten().topk(200).values.mean())


def read_picture(file: Path) -> tuple[Tensor, tuple[int, int]]:
    """A photograph's file: uint8 (3, H', W'), at most 2 · OVERLAY_SIDE a side, and its own size (H, W).

    Raises CosegError where it cannot be read.
    """
    if file.exists() and not file.is_file():  # a pipe would keep us waiting, and is read only once
        raise CosegError(f"{file}: no regular file; name a file that can be read twice")
    width, height = image_size(file)
    return read_image(file, at_most=2 * OVERLAY_SIDE), (height, width)  # by whole numbers: no less than OVERLAY_SIDE


# The first pass -----------------------------------------------------------------------------------------------------


class Pool:
    """The mean or the element-wise minimum of images' attention over a stream, algorithm 1, in constant memory.

    size  D, the length of one image's attention
    how   "mean" or "min"
    The mean is summed in steps of 2^-40 as whole numbers, so it is exact up to that rounding of each term: the order of
    the images, their division among processes and the number of processes do not change one bit. Room for 2^23 − 1.
    """

    STEPS = 2.0**40
    MOST = 2**23 - 1

    def __init__(self, size: int, how: str = "mean"):
        if how not in POOLINGS:
            raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
        self.how, self.count = how, 0
        self.pooled = torch.zeros(size, dtype=torch.int64) if how == "mean" else torch.ones(size)

    def add(self, alpha: Tensor) -> None:
        """alpha (B, D) in [0, 1], of B images. Raises CosegError when it is not finite, or for too many images."""
        alpha = alpha.detach().cpu()
        if not alpha.isfinite().all():
            raise CosegError("attention: not finite for some image; the checkpoint is damaged, give another one")
        if self.how == "mean":
            self.pooled += (alpha.double() * self.STEPS).round().long().sum(dim=0)
        else:
            self.pooled = torch.minimum(self.pooled, alpha.float().amin(dim=0))
        self._counted(self.count + len(alpha))

    def all_reduce(self, fabric) -> None:
        """Pool over all processes of a launched `lightning_fabric.Fabric`; each ends with the same numbers."""
        operation = "sum" if self.how == "mean" else "min"
        self.pooled = fabric.all_reduce(self.pooled, reduce_op=operation).cpu()
        self._counted(int(fabric.all_reduce(torch.tensor(self.count), reduce_op="sum")))

    def _counted(self, count: int) -> None:
        if count > self.MOST:
            raise CosegError(f"{count:,} images: one group holds at most {self.MOST:,}; split it")
        self.count = count

    def context(self) -> Tensor:
        """The group's attention, float (D,). Raises CosegError when nothing was added."""
        if not self.count:
            raise CosegError("no photographs: a group needs at least one")
        if self.how == "min":
            return self.pooled.clone()
        return (self.pooled.double() / self.count / self.STEPS).float()


# Groups in memory ---------------------------------------------------------------------------------------------------


@dataclass
class Chunk:
    """Images that go through the network together.

    numbers  (B,) places in the group        inputs    (B, 3, S, S) in [0, 1], on the model's device
    sizes    (B,) own sizes (H, W)           pictures  (B,) uint8 (3, H', W') to draw on and to look at again; or empty
    started  when its reading began, seconds of `time.perf_counter`
    """

    numbers: list[int]
    inputs: Tensor
    sizes: list[tuple[int, int]]
    pictures: list[Tensor]
    started: float


def _image(photo: Tensor | Photo) -> Tensor:
    return photo.image() if isinstance(photo, Photo) else photo


class Stream:
    """A group gone through from its start as often as asked, `batch` images in memory at a time."""

    def __init__(
        self,
        model,
        photos: Iterable[Tensor | Photo],
        batch: int = BATCH,
        bfloat16: bool = False,
        post: str | None = None,
    ):
        self.model, self.photos, self.batch, self.bfloat16 = model, photos, batch, bfloat16
        self.post = post or post_of(model)
        if self.post not in POSTS:
            raise CosegError(f"post = {self.post}: one of {', '.join(POSTS)}")

    def autocast(self):
        """bfloat16 for the calls of the model within it, where that was asked for."""
        device = next(self.model.parameters()).device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)

    def chunk(self, items: list[tuple[int, Tensor, tuple[int, int], Tensor | None]], started: float) -> Chunk:
        """items: (number, input (3, S, S), own size, picture or None)."""
        numbers, inputs, sizes, pictures = zip(*items, strict=True)
        device = next(self.model.parameters()).device
        stacked = torch.stack(inputs).contiguous(memory_format=torch.channels_last).to(device)
        return Chunk(list(numbers), stacked, list(sizes), [p for p in pictures if p is not None], started)

    def chunks(self, last: bool = False) -> Iterator[Chunk]:
        """The group in order. last: this is the pass that ends in masks."""
        items, started = [], time.perf_counter()
        for number, photo in enumerate(self.photos):
            image = _image(photo)
            again = looks(self.model) > 1 or self.post == "crf"
            picture = reduced(image) if last and again else None
            items.append((number, self.input_of(image), tuple(image.shape[-2:]), picture))
            if len(items) == self.batch:
                yield self.chunk(items, started)
                items, started = [], time.perf_counter()
        if items:
            yield self.chunk(items, started)

    def pooled(self, pool: Pool) -> Tensor | None:
        """The context, once this stream's images are added; None for an empty group."""
        return pool.context() if pool.count else None

    def candidates(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """(number, input (3, S, S)) of `count` images or more, or all, in an order drawn by a seed."""
        total = sum(1 for _ in self.photos)
        drawn = np.random.default_rng(total).permutation(total)[:count].tolist()
        photos = {number: photo for number, photo in enumerate(self.photos) if number in drawn}
        for number in drawn:
            yield number, self.input_of(photos[number])

    def references(self, count: int) -> tuple[list[int], Tensor]:
        """Up to `count` images that stand for the group: their numbers, and inputs (R, 3, S, S)."""
        found = [(n, image, tuple(image.shape[-2:]), None) for n, image in islice(self.candidates(count), count)]
        if not found:
            return [], torch.empty(0)
        chunk = self.chunk(found, 0.0)
        return chunk.numbers, chunk.inputs

    def input_of(self, photo: Tensor | Photo) -> Tensor:
        return resize_to_input(_image(photo), self.model.input_size)


@torch.no_grad()
def _attention(stream: Stream, how: str) -> Pool:
    """AttentionGeneration and pooling of algorithm 1: one pass."""
    pool = Pool(stream.model.context_size, how)
    for chunk in stream.chunks():
        with stream.autocast():
            alpha = stream.model.attention(stream.model.encode(chunk.inputs))
        pool.add(alpha)
    return pool


@torch.no_grad()
def context_answers(stream: Stream, how: str, context: Tensor | None) -> Iterator[tuple[Chunk, Tensor]]:
    """Algorithm 1 for context models: chunk by chunk, each with its logits (B, 2, S, S), 2S after a second look.

    A context model offers `context_size`, `encode`, `attention` and `decode`, see `coseglib.models.semantic_attention`,
    and may ask for a second look by `looks`.
    context  (D,), or None: pooled over the stream in a pass of its own
    """
    model = stream.model
    if context is None:
        context = stream.pooled(_attention(stream, how))
        if context is None:
            return
    context = context.to(next(model.parameters()).device)
    for chunk in stream.chunks(last=True):
        with stream.autocast():
            logits = model.decode(model.encode(chunk.inputs), context)
            if looks(model) > 1:
                logits = second_look(model, chunk.pictures, logits, context)
        yield chunk, logits.float().cpu()


def _others(references: list[int], number: int, count: int) -> list[int]:
    """The first `count` references (their places in the list) that are not the image itself; alone, itself."""
    return [k for k, other in enumerate(references) if other != number][:count] or [0]


@torch.no_grad()
def partner_answers(stream: Stream, how: str, context: None) -> Iterator[tuple[Chunk, Tensor]]:
    """Each image compared with COMPARED references; the mean of the foreground's probabilities, as logits.

    A partner model offers `encode`, `heard` and `compare`, see `coseglib.models.partners`.
    """
    model = stream.model
    numbers, inputs = stream.references(COMPARED + 1)
    if not numbers:
        return
    with stream.autocast():
        answers = model.heard(model.encode(inputs))
    for chunk in stream.chunks(last=True):
        with stream.autocast():
            features = model.encode(chunk.inputs)
            chosen = torch.tensor([_others(numbers, n, COMPARED) for n in chunk.numbers])  # (B, up to COMPARED)
            p = 0
            for column in chosen.T:
                asked = [f[column.to(f.device)] for f in answers]
                p = p + model.compare(features, asked).logits.float().softmax(1) / chosen.shape[1]
        yield chunk, p.clamp(min=1e-6).log().cpu()


@torch.no_grad()
def group_answers(stream: Stream, how: str, context: None) -> Iterator[tuple[Chunk, Tensor]]:
    """A chunk at a time, filled up with references to the number of images that the model was trained with.

    A group model offers `group_size` and takes any number of images, see `coseglib.models.spatial_semantic`.
    """
    model = stream.model
    numbers, inputs = stream.references(model.group_size)
    for chunk in stream.chunks(last=True):
        more = [k for k, n in enumerate(numbers) if n not in chunk.numbers][
            : max(0, model.group_size - len(chunk.numbers))
        ]
        with stream.autocast():
            logits = model(torch.cat([chunk.inputs, inputs[more]])[None]).logits[0, : len(chunk.numbers)]
        yield chunk, logits.float().cpu()


# how a group is answered, by `model.kind`
KINDS = {"context": context_answers, "partner": partner_answers, "group": group_answers}


def _check_kind(model, how: str) -> None:
    if model.kind not in KINDS:
        raise CosegError(f"{model.kind} models: groups are not segmented by them; known: {', '.join(KINDS)}")
    if how not in POOLINGS:
        raise CosegError(f"{how}: no such pooling of a group; {' or '.join(POOLINGS)}")
    if how != "mean" and model.kind != "context":
        raise CosegError(f"{how}: pools the attention of ca, fca and csa; leave it out for {type(model).__name__}")


def _answers(stream: Stream, how: str, context: Tensor | None = None) -> Iterator[tuple[Chunk, Tensor]]:
    _check_kind(stream.model, how)
    if context is not None and stream.model.kind != "context":
        raise CosegError(f"{type(stream.model).__name__}: has no group attention to segment by; leave out the context")
    return KINDS[stream.model.kind](stream, how, context)


def collect_context(
    model, images: Iterable[Tensor | Photo], how: str = "mean", batch: int = BATCH, bfloat16: bool = False
) -> Tensor:
    """The group's attention: mean ("mean") or element-wise minimum ("min") of its images'. float (D,), on the CPU.

    images  uint8 (3, H, W) each, or `Photo`s; gone through once. Raises CosegError when there are none.
    """
    return _attention(Stream(model, images, batch, bfloat16), how).context()


def segment_group(
    model,
    photos: Iterable[Tensor | Photo],
    how: str = "mean",
    context: Tensor | None = None,
    batch: int = BATCH,
    bfloat16: bool = False,
    post: str | None = None,
) -> Iterator[Tensor]:
    """The masks of a group, in its order: uint8 (H, W), values 0 and 1, at each photograph's own size.

    Of a multi-class model they are label maps, 0 … K.

    photos    uint8 (3, H, W) each, or `Photo`s: a sequence, or anything that gives them again when iterated again
    how       how the group's attention is pooled, "mean" or "min"; a group of one is attended by itself
    context   attention (D,) to segment by instead of the group's own, from `collect_context`; one pass is enough then
    bfloat16  faster on processors that have it; masks may then differ in single pixels between machines
    post      how maps become masks, "argmax" or "crf"; None: as the model says, see `coseglib.answering.crf.post_of`
    Raises CosegError for an iterator that can be used up only once, or a model whose kind is not known here.
    """
    if context is None and iter(photos) is photos:
        raise CosegError("a group is read twice: give a sequence, not an iterator, or a context to segment by")
    stream = Stream(model, photos, batch, bfloat16, post)
    for chunk, logits in _answers(stream, how, context):
        pictures = chunk.pictures or [None] * len(chunk.sizes)
        for map_, size, picture in zip(logits, chunk.sizes, pictures, strict=True):
            yield mask_of(model, picture, map_, size, stream.post)


# Files and folders --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """What `segment_photos` did.

    out      the folder written to                 photos   photographs found, skipped ones included
    done     masks there are now                   earlier  of these, by a run that was killed before
    skipped  (file, why) each                      ignored  files in the folders that are no images by their names
    note     a remark for the reader, or ""        seconds  of this run
    rank     of this process: let only 0 speak
    """

    out: Path
    photos: int
    done: int
    earlier: int
    skipped: tuple[tuple[str, str], ...]
    ignored: int
    note: str
    seconds: float
    rank: int

    @property
    def exit_code(self) -> int:
        """0: all done; 2: some were skipped and the rest is written; 1: nothing could be done. Ranks above 0: 0."""
        if self.rank:
            return 0
        return 1 if not self.done else 2 if self.skipped else 0


def find_photos(
    named: Sequence[str | Path], leave_out: Path | None = None
) -> tuple[list[Path], list[tuple[str, str]], int]:
    """Photographs (each once), folders without any (folder, why), and the number of files ignored.

    named      files, taken whatever their names are, and folders: the images in them and below, sorted by path, hidden
               ones left out; other files in a folder are ignored and counted
    leave_out  the folder that masks are written to: neither it nor its masks and overlays are looked into
    """
    photos: dict[str, Path] = {}
    empty: list[tuple[str, str]] = []
    ignored = 0
    closed = {os.path.realpath(leave_out / f) for f in ("", "masks", "overlays")} if leave_out else set()
    for path in [Path(named)] if isinstance(named, str | Path) else map(Path, named):
        if not path.is_dir():
            photos.setdefault(os.path.abspath(path), path)
            continue
        found = []
        for folder, folders, files in os.walk(path):
            folders[:] = [f for f in folders if f[0] != "." and os.path.realpath(Path(folder, f)) not in closed]
            seen = [Path(folder, f) for f in files if f[0] != "."]
            images = [f for f in seen if f.suffix.lower() in SUFFIXES]
            found += images
            ignored += len(seen) - len(images)
        for photo in sorted(found):
            photos.setdefault(os.path.abspath(photo), photo)
        if not found:
            empty.append((str(path), "no photographs in this folder"))
    return list(photos.values()), empty, ignored


def output_names(photos: Sequence[Path]) -> list[str]:
    """A file name, without ending, for each photograph's mask: its stem, or more where names would collide.

    Those whose stems are equal keep their extension (cat.jpg, cat.png); those that are still equal put the folders
    above them in front, one after the other, until they differ (dogs__cat.jpg, cats__cat.jpg); what then remains is
    numbered (cat.jpg-2). Upper and lower case are equal, as on many file systems. Names beyond 200 bytes are cut, and
    eight digits of their SHA-256 appended: file systems end at 255. The names depend on the photographs and their
    order alone.
    """
    parts = [Path(os.path.abspath(p)).parts for p in photos]
    level = [0] * len(photos)  # 0: stem, 1: file name, 2 …: with so many parts of the path

    def name(i: int) -> str:
        full = Path(parts[i][-1]).stem if level[i] == 0 else "__".join(parts[i][1:][-level[i] :])
        data = os.fsencode(full)
        return (
            full if len(data) <= 200 else f"{data[:180].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"
        )

    while True:
        places: dict[str, list[int]] = {}
        for i in range(len(photos)):
            places.setdefault(name(i).casefold(), []).append(i)
        raised = False
        for clash in places.values():
            lowest = min(level[i] for i in clash)
            for i in clash:
                if len(clash) > 1 and level[i] == lowest and level[i] < len(parts[i]) - 1:
                    level[i], raised = level[i] + 1, True
        if not raised:
            break
    names, taken = [], {key for key, clash in places.items() if len(clash) == 1}
    for i in range(len(photos)):
        candidate, k = name(i), 1
        while len(places[name(i).casefold()]) > 1 and candidate.casefold() in taken:
            k += 1
            candidate = f"{name(i)}-{k}"
        taken.add(candidate.casefold())
        names.append(candidate)
    return names


def _shares(labels: Tensor, classes: int) -> list[float]:
    """How much of a photograph each of the classes 1 … `classes` covers."""
    counts = torch.bincount(labels.flatten(), minlength=classes + 1)[1:]
    return [round(int(count) / labels.numel(), 6) for count in counts]


def _note(entries: Iterable[dict], common_from: dict | None) -> str:
    """What the user should know of a group that was segmented; "" for nothing.

    common_from  {"score", "on", …} of the checkpoint's card: below that score pairs without a common class are the
                 likelier ones, see `coseglib.evaluation.shipping`; None: not known of this checkpoint
    """
    entries = list(entries)
    if len(entries) == 1:
        return "a group of one photograph: it is attended by itself"
    scores = [entry["score"] for entry in entries if "score" in entry]
    if not scores or not common_from or np.mean(scores) >= common_from["score"]:
        return ""
    return (
        f"perhaps nothing is common to these photographs: their mean score is {np.mean(scores):.2f}, and from "
        f"{common_from['score']:.2f} on something is likelier than not ({common_from['on']})"
    )


class _Progress:
    """Photographs done and time left, on stderr: one line, rewritten, in a terminal, a line every 5 s elsewhere."""

    def __init__(self, text: str, total: int, quiet: bool):
        self.text, self.total, self.quiet = text, total, quiet
        self.started = self.shown = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count
        now, terminal, end = time.monotonic(), sys.stderr.isatty(), self.done == self.total
        if self.quiet or (not end and now - self.shown < (0.2 if terminal else 5)):
            return
        self.shown, spent = now, max(now - self.started, 1e-9)
        left = clock(spent / self.done * (self.total - self.done))
        line = f"{self.text}: {self.done:,} of {self.total:,} photos, {self.done / spent:.1f} photos/s, {left} left"
        print(f"\r{line}\033[K" if terminal else line, end="\n" if end or not terminal else "", file=sys.stderr)
        sys.stderr.flush()


def _identity(model) -> str:
    """What tells one trained model from another: its checkpoint's SHA-256, else that of its tensors."""
    card = getattr(model, "card", {})
    if "sha256" in card:
        return card["sha256"]
    digest = hashlib.sha256(f"{type(model).__qualname__} {model}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return os.path.abspath(path), -1, -1
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


class _Job(Stream):
    """The stream of one process of `segment_photos`: photographs on disk, its share of the chunks, what is done.

    Beside the masks a folder `.coseg/<fingerprint>` holds what a killed run leaves to the next: the pooled attention
    once the first pass is over (attention.safetensors), and a line for each photograph that is written
    (progress-<rank>.jsonl). It is removed when the run is complete.
    """

    def __init__(self, model, photos: list[Path], out: Path, fabric, batch: int, bfloat16: bool, post, quiet: bool):
        super().__init__(model, photos, batch, bfloat16, post)
        self.out, self.fabric, self.quiet = out, fabric, quiet or fabric.global_rank > 0
        self.names = output_names(photos)
        self.skipped: dict[int, str] = {}
        self.first_pass = 0.0  # seconds a photograph
        self.done: dict[int, dict] = {}

    def open(self, fingerprint: str) -> None:
        """Take up what an interrupted run of the same fingerprint has left; clear away what others have."""
        home = self.out / ".coseg"
        self.state = home / fingerprint[:16]
        if self.fabric.local_rank == 0 and home.is_dir():
            for other in home.iterdir():
                if other != self.state:
                    shutil.rmtree(other, ignore_errors=True)
        self.fabric.barrier()
        for folder in (self.state, self.out / "masks", self.out / "overlays"):
            folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.state.glob("progress-*.jsonl")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError):  # the last line of a killed process may be half a line
                    entry = json.loads(line)
                    number = entry.pop("photo")
                    if all((self.out / entry[k]).is_file() for k in ("mask", "overlay")):
                        self.done[number] = entry
        for done in self.gather(self.done):
            self.done |= done
        self.earlier = len(self.done)
        self.log = open(self.state / f"progress-{self.fabric.global_rank}.jsonl", "a+b")  # noqa: SIM115 (see close)
        if self.log.tell():
            self.log.write(b"\n")

    def close(self) -> None:
        self.log.close()

    def gather(self, value) -> list:
        """What each process has, on every process."""
        if self.fabric.world_size == 1:
            return [value]
        values = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def kept(self) -> Tensor | None:
        """The context that an interrupted run has pooled."""
        state = None
        if self.fabric.global_rank == 0:
            with contextlib.suppress(CosegError):
                tensors, header = read_tensors(self.state / "attention.safetensors")
                skipped = {int(number): why for number, why in header["skipped"].items()}
                state = tensors["context"], skipped, header["seconds"]
        state = self.fabric.broadcast(state)
        if state is None:
            return None
        context, self.skipped, self.first_pass = state
        return context

    def pooled(self, pool: Pool) -> Tensor | None:
        pool.all_reduce(self.fabric)
        for skipped in self.gather(self.skipped):
            self.skipped |= skipped
        if not pool.count:
            return None
        context = pool.context()
        if self.fabric.local_rank == 0:
            header = {"format": FORMAT, "kind": "attention", "skipped": self.skipped, "seconds": self.first_pass}
            write_tensors(self.state / "attention.safetensors", {"context": context}, header)
        return context

    def read(self, number: int, last: bool) -> tuple[int, Tensor, tuple[int, int], Tensor | None] | None:
        """One item of a chunk, or None, and the reason noted, for a photograph that cannot be read."""
        file = self.photos[number]
        try:
            picture, (height, width) = read_picture(file)
        except CosegError as error:
            self.skipped[number] = str(error).removeprefix(f"{file}: ")
            return None
        image = resize_to_input(picture, self.model.input_size)
        scale = min(1, OVERLAY_SIDE / max(width, height))
        shown = [max(1, round(side * scale)) for side in (height, width)]
        return number, image, (height, width), tvf.resize(picture, shown, antialias=True) if last else None

    def candidates(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """As above; photographs that cannot be read are passed over. The same ones in every process."""
        for number in np.random.default_rng(len(self.photos)).permutation(len(self.photos)).tolist():
            item = self.read(number, last=False)
            if item:
                yield number, item[1]

    def chunks(self, last: bool = False) -> Iterator[Chunk]:
        """This process's share. Chunks are cut by the photographs' places in the whole list, and the last pass goes
        through a chunk in full if one photograph of it is missing: batches are the same in every run."""
        n = len(self.photos)
        cut = [range(start, min(start + self.batch, n)) for start in range(0, n, self.batch)]
        if last:
            over = self.done.keys() | self.skipped.keys()
            cut = [numbers for numbers in cut if any(i not in over for i in numbers)]
        mine = cut[self.fabric.global_rank :: self.fabric.world_size]
        share = "" if self.fabric.world_size == 1 else f"process 1 of {self.fabric.world_size}"
        passes = "" if self.model.kind != "context" else "pass 2 of 2" if last else "pass 1 of 2"
        note = ", ".join(part for part in (passes, share) if part)
        text = f"{'masks' if last else 'attention'}{f' ({note})' if note else ''}"
        progress = _Progress(text, sum(map(len, mine)), self.quiet)
        for numbers in mine:
            started = time.perf_counter()
            items = [item for i in numbers if i not in self.skipped and (item := self.read(i, last))]
            if items:
                yield self.chunk(items, started)
            progress.add(len(numbers))
            if not last:
                self.first_pass = (time.monotonic() - progress.started) / progress.done

    def write(self, chunk: Chunk, logits: Tensor) -> None:
        """Masks and overlays of a chunk, except those that an interrupted run has written."""
        shared = self.first_pass + (time.perf_counter() - chunk.started) / len(chunk.numbers)
        from coseglib.segmenting.overlays import class_colours, overlay

        classes = self.model.classes if self.model.online else None
        colours = class_colours(classes) if classes else None
        for number, map_, size, picture in zip(chunk.numbers, logits, chunk.sizes, chunk.pictures, strict=True):
            if number in self.done:
                continue
            started = time.perf_counter()
            mask = mask_of(self.model, picture, map_, size, self.post)
            name = self.names[number]
            files = {"mask": f"masks/{name}.png", "overlay": f"overlays/{name}.jpg"}
            write_png(self.out / files["mask"], mask if classes else 255 * mask)
            shown = F.interpolate(mask[None, None], size=picture.shape[-2:], mode="nearest")[0, 0]
            write_jpg(self.out / files["overlay"], overlay(picture, shown, colours))
            entry = {
                **files,
                "width": size[1],
                "height": size[0],
                "foreground_share": round(int(mask.count_nonzero()) / mask.numel(), 6),
                **(
                    {"class_shares": _shares(mask, classes)} if classes else {"score": round(foreground_score(map_), 4)}
                ),
                "seconds": round(shared + time.perf_counter() - started, 4),
            }
            self.log.write(json.dumps({"photo": number, **entry}).encode() + b"\n")
            self.log.flush()
            self.done[number] = entry


def segment_photos(
    named: Sequence[str | Path],
    out: str | Path,
    model,
    how: str = "mean",
    *,
    batch: int = BATCH,
    bfloat16: bool = False,
    post: str | None = None,
    devices: int | str = 1,
    num_nodes: int = 1,
    accelerator: str = "auto",
    quiet: bool = False,
) -> Summary:
    """Segment what the photographs have in common; the job behind `coseg segment`.

    named   files and folders, see `find_photos`          out  the folder to write to, made where there is none
    model   in evaluation mode, from `load_model`         how  the group's attention: "mean" or "min"
    devices, num_nodes, accelerator  Fabric's; torchrun works as well. Several processes give the very masks of one.
    post    how maps become masks: "argmax" or "crf"; None: as the model says, see `coseglib.answering.crf.post_of`

    Writes out/masks/<name>.png (0 and 255, the photograph's own size as displayed; of a multi-class model a label map,
    0 the background, 1 … K), out/overlays/<name>.jpg (at most 1600 pixels on the long side), names as in
    `output_names`, and out/result.json: {checkpoint, sha256, group, looks, post, ignored, note, photos}, photos with
    one entry each in the order found: {file, mask, overlay, width, height, foreground_share, score, seconds} or {file,
    skipped}; score says how sure the model is (`foreground_score`), and the note whether anything is common at all. Of
    a multi-class model also classes, K, and learning, what its card says of that, and in the entries class_shares, a
    number for each class, and no score. Every file is written beside its place and moved there.

    A photograph that cannot be read is skipped and named. A run that was killed goes on with the photographs not yet
    done when it is started again with the same model, photographs (path, size, date) and options; else it starts anew.
    Raises CosegError when nothing can be written to `out`, or for an unknown `how` or kind of model.
    """
    started, out = time.perf_counter(), Path(out)
    _check_kind(model, how)  # before anything is written
    card = getattr(model, "card", {})
    multi = {"classes": model.classes} if model.online else {}
    fabric = launch(devices, num_nodes, accelerator)
    photos, empty, ignored = fabric.broadcast(find_photos(named, leave_out=out))
    model = model.to(fabric.device).eval()
    stamps = fabric.broadcast([_stamp(p) for p in photos])
    job = _Job(model, photos, out, fabric, batch, bfloat16, post, quiet)
    key = [
        _identity(model),
        stamps,
        how,
        model.input_size,
        looks(model),
        job.post,
        batch,
        bfloat16,
        *multi.values(),
    ]
    if multi:
        multi["learning"] = {name: card.get(name) for name in ("learning_rate", "epochs", "loss", "seconds")}
    try:
        out.mkdir(parents=True, exist_ok=True)
        job.open(hashlib.sha256(json.dumps(key).encode()).hexdigest())
        try:
            for chunk, logits in _answers(job, how, job.kept()):
                job.write(chunk, logits)
        finally:
            job.close()
        for done, skipped in job.gather((job.done, job.skipped)):
            job.done |= done
            job.skipped |= skipped
        note = _note(job.done.values(), card.get("common_from"))
        entries = [
            {"file": str(p), **(job.done[i] if i in job.done else {"skipped": job.skipped[i]})}
            for i, p in enumerate(photos)
        ] + [{"file": folder, "skipped": why} for folder, why in empty]
        if fabric.global_rank == 0:
            result = {
                "checkpoint": card.get("name"),
                "sha256": card.get("sha256"),
                "group": how,
                "looks": looks(model),
                "post": job.post,
                **multi,
                "ignored": ignored,
                "note": note,
                "photos": entries,
            }
            write_text(out / "result.json", json.dumps(result, indent=1) + "\n")
        fabric.barrier()
        if fabric.local_rank == 0:
            shutil.rmtree(out / ".coseg", ignore_errors=True)
            for part in [*out.glob("masks/.*.part"), *out.glob("overlays/.*.part")]:  # a killed process was writing
                part.unlink(missing_ok=True)
    except OSError as error:
        raise CosegError(f"{error.filename or out}: {error.strerror or error}; mend it or give another -o") from error
    fabric.barrier()
    return Summary(
        out=out,
        photos=len(photos),
        done=len(job.done),
        earlier=job.earlier,
        skipped=tuple((e["file"], e["skipped"]) for e in entries if "skipped" in e),
        ignored=ignored,
        note=note,
        seconds=time.perf_counter() - started,
        rank=fabric.global_rank,
    )
