"""A further paper is one class and one line in the registry: what the library does with papers it does with this."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coseglib.data.images import write_png
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation.benchmark import photo_rows, score_table
from coseglib.evaluation.systems import load_systems
from coseglib.explorer.session import Session
from coseglib.models import METHODS, load_model
from coseglib.models.contract import Output, Paper, PartnerModel
from coseglib.scoring.metrics import PROTOCOLS
from coseglib.scoring.rows import evaluate, partner_swap, refusal
from coseglib.segmenting.job import segment_photos


class Sixth(PartnerModel):
    """Where an image's stride-8 features look like the mean of its partner's: a paper of this test alone."""

    paper = Paper("sixth2030", ("Sixth",), "dcnet", "MobileNetV2", "drawn scenes")
    EXTRAS = {"likeness": "cosine with the partner's mean, (B, N, h, w)"}  # noqa: RUF012

    def __init__(self, backbone, variant="paper", input_size=64, *, width: int = 16):
        super().__init__(backbone, variant, input_size)
        self.reduce = nn.Conv2d(backbone.channels[2], width, 1)
        self.logits = nn.Conv2d(width + 1, 2, 3, padding=1)

    def encode(self, images):
        return [self.reduce(super().encode(images)[2])]

    def answer(self, maps, reference):
        likeness = F.cosine_similarity(maps[0], reference[0].mean(dim=(2, 3), keepdim=True))[:, None]
        logits = self.logits(torch.cat([maps[0], likeness], dim=1))
        return Output(F.interpolate(logits, scale_factor=8, mode="bilinear").float(), {"likeness": likeness[:, 0]})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with model.safetensors of the sixth paper, trained by its kind's defaults."""
    from coseglib.training.configuration import load_profile
    from coseglib.training.loop import train

    METHODS["sixth"] = Sixth  # its line in the registry
    try:
        home = tmp_path_factory.mktemp("sixth") / "run"
        config = load_profile("smoke", "sixth", {"steps": "3", "synthetic_photos": "24", "options.width": "8"})
        train(config, home, devices=1, accelerator="cpu", quiet=True)
        yield home
    finally:
        del METHODS["sixth"]


def test_it_trains_and_comes_back_with_its_options(run):
    model = load_model(run / "model.safetensors")
    assert isinstance(model, Sixth) and dict(model.options) == {"width": 8} and model.card["step"] == 3


def test_it_segments_what_evaluate_scores(run, tmp_path):
    group = load_synthetic(groups=2, photos=4, size=64)[0]
    for i, photo in enumerate(group.photos):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_png(tmp_path / "in" / f"{i}.png", photo.image())
    assert (
        segment_photos([tmp_path / "in"], tmp_path / "out", load_model(run / "model.safetensors"), quiet=True).done == 4
    )


def test_it_is_evaluated_swapped_and_refuses(run):
    model, groups = load_model(run / "model.safetensors"), load_synthetic(groups=3, photos=4, size=64)
    assert len(evaluate(model, groups, partner=("group", "self", "other"))) == 36
    assert refusal(model, groups).score.between(0, 1).all()
    two = [g for g in load_synthetic() if len(g) > 1]
    assert len(partner_swap(model, two, partners=2)) > 0


def test_it_opens_in_the_explorers_session(run):
    group = load_synthetic(groups=1, photos=3, size=64)[0]
    session = Session(load_model(run / "model.safetensors"), group.photos, group.targets)
    assert all(0 <= j <= 1 for j in session.scores())
    assert session.matches(0, 0.5, 0.5).maps[1] is not None  # cosines of features: it compares no positions itself
    assert session.grad_cam(0).maps[0] is not None


def test_it_stands_in_a_benchmark_table(run, tmp_path):
    (system,) = load_systems((str(run / "model.safetensors"),), floors=())
    groups = load_synthetic(groups=2, photos=3, size=64)
    rows = photo_rows([system], groups, tmp_path / "kept.csv", (PROTOCOLS["common"],), say=lambda text: None)
    table = score_table(rows, [system], (PROTOCOLS["common"],))
    assert set(table.method) == {"sixth"} and table.J.between(0, 1).all()
