"""The job behind `coseg segment`: photographs on disk -> masks, overlays and a table on disk.

Sharded over processes, resumed where it was killed, and a bad file costs itself alone. The masks are those of
`coseglib.answering`, which asks all photographs as one group.

`segment_photos` writes out/masks/<name>.png (0 and 255, the photograph's own size as displayed; of a multi-class
model 0 the background, 1 … K, in a palette), out/overlays/<name>.jpg (at most 1600 pixels on the long side, a legend of
label maps below it), names as in `output_names`, and out/result.json: {from, checkpoint, sha256, group, looks, post,
precision, references, prior, ignored, note, apart, look_first, photos}, an entry a photograph, as found: {file, mask,
overlay, width, height, area, box, foreground_share, score, expected_j, seconds} or {file, skipped}. area is in pixels,
box [x, y, width, height] or null where the mask is empty; score says how sure the model is that something is there
(`foreground_score`), expected_j how well it thinks that the mask fits (`expected_jaccard`); look_first has {file, why}
of the masks that a person should check, the note whether anything is common, apart which files seem to be another
group's (`coseglib.segmenting.apart`), from the folder that files are named from. Of a multi-class model also classes,
names (null: nobody named them), learning, and for score and expected_j, a number a class in the labels' order,
class_shares of the photograph and class_scores (`coseglib.segmenting.labels`). Files are moved to their places whole.
What else is made: `coseglib.segmenting.exports`.
"""

import base64
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coseglib.answering.answers import BATCH, Answer, Engine, check_pooling, whole_group
from coseglib.answering.kinds import Pool
from coseglib.answering.masks import foreground_score, masks, post_of
from coseglib.answering.reading import MOST_BYTES, Memory, Photographs, Picture
from coseglib.answering.reference import Reference, check_references, evidence_of
from coseglib.core.devices import precision_of, sharing
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.progress import Progress
from coseglib.data import images
from coseglib.data.folders import AS_OURS, is_ours
from coseglib.data.record import digest, resize_labels
from coseglib.models.checkpoints import FORMAT, read_tensors, write_tensors
from coseglib.segmenting.apart import find_apart, is_asked, note_on, with_vectors
from coseglib.segmenting.coco import box_of
from coseglib.segmenting.exports import export, made_before
from coseglib.segmenting.finding import check_output, find_photos, output_names, result_files, stamp_of
from coseglib.segmenting.labels import check_names, class_colours, label_palette, legend_of, scores_of, shares_of
from coseglib.segmenting.look_first import expected_jaccard, look_first, note_for
from coseglib.segmenting.overlays import overlay, with_legend

LEARNED = ("learning_rate", "epochs", "loss", "seconds", "trust", "classes_proposed")  # of a multi-class card
FITTING = 100  # photographs; of more, what the first pass keeps would be gone before the second one asks for it
# marked, so that no later run takes them for photographs; masks are small at every level of compression
write_png = partial(images.write_png, compress_level=3, **AS_OURS["PNG"])
write_jpg = partial(images.write_jpg, **AS_OURS["JPEG"])


@dataclass(frozen=True)
class Summary:
    """What `segment_photos` did."""

    out: Path  # the folder written to
    photos: int  # found, skipped ones included
    done: int  # masks there are now
    earlier: int  # of these, by a run that was killed before
    skipped: tuple[tuple[str, str], ...]  # (file, why) each
    ignored: int  # files in the folders that are no images by their names
    note: str  # a remark for the reader, or ""
    older: tuple[str, ...]  # masks of earlier runs that stay beside, of other photographs
    seconds: float  # of this run
    rank: int  # of this process: let only 0 speak

    @property
    def exit_code(self) -> int:
        """0: all done; 2: some were skipped and the rest is written; 1: nothing could be done. Ranks above 0: 0."""
        if self.rank:
            return 0
        return 1 if not self.done else 2 if self.skipped else 0


def _identity(model) -> str:
    """What tells one trained model from another: its checkpoint's SHA-256, else a hash of its tensors."""
    if "sha256" in model.card:
        return model.card["sha256"]
    import joblib

    tensors = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    return joblib.hash([type(model).__qualname__, str(model), tensors], "sha1")


class _Job(Photographs):
    """The photographs of one process of `segment_photos`: its share of the batches, what is left out, what is done.

    Beside the masks a folder `.coseg/<fingerprint>` holds what a killed run leaves to the next: the pooled attention
    once the first pass is over (attention.safetensors), and a line for each photograph that is written
    (progress-<rank>.jsonl). It is removed when the run is complete.
    """

    def __init__(self, photos: list[Path], out: Path, model, fabric, quiet: bool, names: Sequence[str]):
        super().__init__(photos)
        if model.prior:
            model.prior.check(photos)
        self.out, self.model, self.fabric, self.class_names = out, model, fabric, names
        self.quiet = quiet or fabric.global_rank > 0
        self.names = output_names(photos)
        self.skipped: dict[int, str] = {}
        self.pass_seconds = 0.0  # of the first pass, a photograph
        self.done: dict[int, dict] = {}
        self.vectors: dict[int, np.ndarray] = {}  # of those that are done, see `coseglib.segmenting.apart`
        self.memory = Memory(MOST_BYTES // 4 if len(photos) > FITTING else MOST_BYTES)

    # What a killed run has left ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self, fingerprint: str) -> Iterator[None]:
        """With what an interrupted run of the same fingerprint has left. At the end every process knows what all have
        done."""
        self.state = self.out / ".coseg" / fingerprint
        for folder in (self.state, self.out / "masks", self.out / "overlays"):
            folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.state.glob("progress-*.jsonl")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError):  # the last line of a killed process may be half a line
                    entry = json.loads(line)
                    number, vector = entry.pop("photo"), entry.pop("vector", "")
                    if all((self.out / entry[k]).is_file() for k in ("mask", "overlay")):
                        self.done[number] = entry
                        if vector:
                            self.vectors[number] = np.frombuffer(base64.b64decode(vector), np.int8)
        for done in self.gather(self.done):
            self.done |= done
        self.earlier = len(self.done)
        with open(self.state / f"progress-{self.fabric.global_rank}.jsonl", "a+b") as self.log:
            if self.log.tell():
                self.log.write(b"\n")
            yield
        for done, skipped, vectors in self.gather((self.done, self.skipped, self.vectors)):
            self.done |= done
            self.skipped |= skipped
            self.vectors |= vectors

    def entries(self) -> list[dict]:
        """The photographs of result.json, in the order found."""
        about = (self.done.get(i) or {"skipped": self.skipped[i]} for i in range(len(self)))
        return [{"file": str(file), **entry} for file, entry in zip(self.photos, about, strict=True)]

    def result(self, left_out: list[tuple[str, str]], referred: bool) -> dict:
        """What result.json says of the photographs, and of what was left out. referred: to references."""
        alone = not referred and self.model.prior is None
        common_from = self.model.card.get("common_from") if alone else None  # it is measured without either
        entries = [*self.entries(), *({"file": folder, "skipped": why} for folder, why in left_out)]
        apart = self.apart()
        notes = self.model.card.get("nothing_learned"), note_for(self.done.values(), common_from)
        note = "; ".join(filter(None, (*notes, note_on(apart, len(self.done)))))
        return {"note": note, "apart": apart, "look_first": look_first(entries), "photos": entries}

    def apart(self) -> list[str]:
        """The files that stand apart from the rest, as one process finds and all know."""
        found = None
        if self.fabric.global_rank == 0:
            found = find_apart(self.model, self.photos, self.vectors, self.memory)
        return [str(self.photos[place]) for place in self.fabric.broadcast(found)]

    def older(self) -> tuple[str, ...]:
        """Masks of ours that are none of this run's."""
        masks = {self.out / entry["mask"] for entry in self.done.values()}
        return tuple(sorted(f.name for f in (self.out / "masks").glob("*.png") if f not in masks and is_ours(f)))

    def summary(self, result: dict, seconds: float) -> Summary:
        """What is said of a run with this result.json."""
        skipped = tuple((entry["file"], entry["skipped"]) for entry in result["photos"] if "skipped" in entry)
        counts = len(self), len(self.done), self.earlier
        said = skipped, result["ignored"], result["note"], self.older()
        return Summary(self.out, *counts, *said, seconds, self.fabric.global_rank)

    def finish(self, result: dict, goes_on: bool = False) -> bool:
        """Write result.json, and clear away what was kept for another run, unless the run goes on elsewhere. A call
        that could do nothing, of a name that was mistyped, leaves what others have done and begun: False."""
        home = self.out / ".coseg"
        counts = bool(self.done) or goes_on or not any(self.out.glob("masks/*.png"))
        if self.fabric.global_rank == 0 and counts:
            write_text(self.out / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
        self.fabric.barrier()
        if self.fabric.local_rank == 0:
            if not goes_on:
                shutil.rmtree(home if self.done else self.state, ignore_errors=True)
                with contextlib.suppress(OSError):
                    home.rmdir()
            for part in [*self.out.glob("masks/.*.part"), *self.out.glob("overlays/.*.part")]:  # of a killed process
                part.unlink(missing_ok=True)
        self.fabric.barrier()
        return counts

    def gather(self, value) -> list:
        """What each process has, on every process."""
        if self.fabric.world_size == 1:
            return [value]
        values = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def read(self, place: int) -> Picture | None:
        """None, and the reason noted, for a photograph that cannot be read."""
        if place in self.skipped:
            return None
        try:
            return super().read(place)
        except CosegError as error:
            self.skipped[place] = str(error).removeprefix(f"{self.photos[place]}: ")
            return None

    def _share(self, batches: list[Sequence[int]], text: str) -> Iterator[Sequence[int]]:
        """This process's batches, with progress. They are cut by the photographs' places in the whole list, and gone
        through in full if one photograph of them is missing: batches are the same in every run."""
        mine = batches[self.fabric.global_rank :: self.fabric.world_size]
        share = "" if self.fabric.world_size == 1 else f"process 1 of {self.fabric.world_size}"
        passes = "" if self.model.kind != "context" else f"pass {1 if text == 'attention' else 2} of 2"
        note = ", ".join(part for part in (passes, share) if part)
        with Progress(f"{text}{f' ({note})' if note else ''}", sum(map(len, mine)), quiet=self.quiet) as progress:
            for places in mine:
                yield places
                progress.add(len(places))

    def first_pass(self, batches: list[Sequence[int]]) -> Iterable[Sequence[int]]:
        return self._share(batches, "attention")

    def last_pass(self, batches: list[Sequence[int]]) -> Iterable[Sequence[int]]:
        over = self.done.keys() | self.skipped.keys()
        return self._share([places for places in batches if any(i not in over for i in places)], "masks")

    def pooled(self, groups: list[Sequence[int]], compute: Callable[[], dict]) -> dict:
        """The one group's pool over all processes; an interrupted run's where there is one."""
        (group,), file = groups, self.state / "attention.safetensors"
        kept = None
        if self.fabric.global_rank == 0:
            with contextlib.suppress(CosegError):
                tensors, header = read_tensors(file)
                skipped = {int(number): why for number, why in header["skipped"].items()}
                kept = tensors["pooled"], header["how"], header["count"], skipped, header["seconds"]
        kept = self.fabric.broadcast(kept)
        if kept is not None:
            pooled, how, count, self.skipped, self.pass_seconds = kept
            pool = Pool(len(pooled), how)
            pool.pooled, pool.count = pooled, count
            return {group: pool}
        started = time.perf_counter()
        pools = compute()
        self.pass_seconds = (time.perf_counter() - started) / max(1, len(self))
        pools[group].all_reduce(self.fabric)
        for skipped in self.gather(self.skipped):
            self.skipped |= skipped
        if self.fabric.local_rank == 0 and pools[group].count:
            header = {"format": FORMAT, "kind": "attention", "skipped": self.skipped, "seconds": self.pass_seconds}
            header |= {"how": pools[group].how, "count": pools[group].count}
            write_tensors(file, {"pooled": pools[group].pooled}, header)
        return pools

    def answer_all(self, engine: Engine, how: str, post: str, references: Sequence[Reference]) -> None:
        """Write what is not yet done."""
        evidence = evidence_of(engine, references, range(len(self)), how) if references else None
        answers = engine.answers(whole_group(len(self)), how, evidence=evidence)
        missing = (answer for answer in answers if answer.photo not in self.done)
        if is_asked(self.model) and not references:
            missing = with_vectors(engine, missing, self.vectors)
        count = len(self) - self.earlier if self.fabric.world_size == 1 else 0  # other processes have the other cores
        for answer, mask in masks(self.model, missing, post, count):
            self.write(answer, mask)

    # What is written --------------------------------------------------------------------------------------------------

    def write(self, answer: Answer, mask: Tensor) -> None:
        """The mask and the overlay of a photograph, and its line in the log."""
        started = time.perf_counter()
        for other in set(self.state.parent.glob("*")) - {self.state}:  # its masks are no longer what it left
            shutil.rmtree(other, ignore_errors=True)
        name, size, picture = self.names[answer.photo], answer.picture.size, answer.picture.pixels
        classes = self.model.classes if self.model.online else 0
        files = dict(zip(("mask", "overlay"), result_files(name), strict=True))
        if classes:
            write_png(self.out / files["mask"], mask, palette=label_palette())
        else:
            write_png(self.out / files["mask"], 255 * mask)
        shown = resize_labels(mask, tuple(picture.shape[-2:]))
        drawn = overlay(picture, shown, class_colours(classes) or None)
        write_jpg(self.out / files["overlay"], with_legend(drawn, legend_of(mask, classes, self.class_names)))
        area = int(mask.count_nonzero())
        entry = {**files, "width": size[1], "height": size[0], "area": area, "box": box_of(mask.numpy())}
        entry["foreground_share"] = round(area / mask.numel(), 6)
        if classes:
            entry["class_shares"] = shares_of(mask, classes)
            entry["class_scores"] = scores_of(answer.logits, mask)
        else:
            entry["score"] = round(foreground_score(answer.logits), 4)
            entry["expected_j"] = round(expected_jaccard(answer.logits, mask), 4)
        entry["seconds"] = round(self.pass_seconds + answer.seconds + time.perf_counter() - started, 4)
        line = {"photo": answer.photo, **entry}
        if answer.photo in self.vectors:
            line["vector"] = base64.b64encode(self.vectors[answer.photo]).decode()
        self.log.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self.log.flush()
        self.done[answer.photo] = entry


def segment_photos(
    named: Sequence[str | Path],
    out: str | Path,
    model,
    how: str = "mean",
    *,
    batch: int = BATCH,
    post: str | None = None,
    references: Sequence[Reference] = (),
    exports: Sequence[str] = (),
    names: Sequence[str] = (),
    quiet: bool = False,
    fabric=None,
    goes_on: bool = False,
    **where: int | str,
) -> Summary:
    """Segment what the photographs have in common; the job behind `coseg segment`.

    named   files and folders, see `find_photos`          out  the folder to write to, made where there is none
    model   in evaluation mode, from `load_model`         how  the group's attention: "mean" or "min"
    where   devices, num_nodes, accelerator of `sharing`. Several processes give the very masks of one
    post    how maps become masks: "argmax" or "crf"; None: as the model says, see `coseglib.answering.masks.post_of`
    references  pictures in which the object that is meant is marked, of the photographs or others
    exports  what else is made of the masks, see `coseglib.segmenting.exports`
    names    of a multi-class model's classes, in the order of the labels; (): they have none
    fabric, goes_on  of `coseglib.segmenting.groups`: launched already; and this group is one of a run that is not over,
            which finds it done should it be killed and started again

    What is written is said at the head of this file. A run that was killed goes on with the photographs not yet done
    when it is started again with the same model, photographs (path, size, date) and options; else it starts anew. What
    cannot be read is skipped and named. Raises CosegError when nothing can be written to `out`, where something that is
    not ours is in the way (`check_output`), for marks or names that are wrong, or an unknown `how` or kind of model.
    """
    started, out = time.perf_counter(), Path(out)
    check_pooling(model, how)  # before anything is written
    check_references(model, references)
    check_names(names, model.classes if model.online else 0)
    found = find_photos(named, leave_out=out)
    check_output(out, output_names(found[0]), exports=exports)
    fabric = fabric or sharing(**where)
    photos, left_out, ignored = fabric.broadcast(found)
    model, post = model.to(fabric.device).eval(), post_of(model, post)
    precision = precision_of(model.precision, fabric.device)
    job = _Job(photos, out, model, fabric, quiet, names)
    stamps = fabric.broadcast([stamp_of(p) for p in photos])
    key = [_identity(model), stamps, how, model.input_size, model.looks, post, batch, precision, model.classes]
    key += [reference.key() for reference in references] + list(names) + [model.prior and model.prior.about()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with job.opened(digest(key)):
            job.answer_all(Engine(model, job, batch, job.memory), how, post, references)
        about = _about(model, how, post, precision, references, names) | {"ignored": ignored}
        result = about | job.result(left_out, bool(references))
        if job.finish(result, goes_on) and fabric.global_rank == 0:
            export(out, [*exports, *made_before(out, job.done.values())], quiet)
    except OSError as error:
        raise CosegError(f"{error.filename or out}: {error.strerror or error}; mend it or give another -o") from error
    return job.summary(result, time.perf_counter() - started)


def _about(model, how: str, post: str, precision: str, references: Sequence[Reference], names: Sequence[str]) -> dict:
    """What result.json says of the model and how it was asked; prior: name, weight and sha256, or null."""
    card = model.card
    about = {"from": os.getcwd(), "checkpoint": card.get("name"), "sha256": card.get("sha256")}
    about |= {"group": how, "looks": model.looks}
    about |= {"post": post, "precision": precision, "references": [reference.about() for reference in references]}
    about["prior"] = model.prior and model.prior.about()
    if model.online:
        about |= {"classes": model.classes, "names": list(names) or None, "learning": {k: card.get(k) for k in LEARNED}}
    return about
