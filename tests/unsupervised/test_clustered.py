"""The workbook's generator as it is trained: on drawn scenes, with the network that knows such scenes."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.data.sets.multiclass import drawn_groups
from coseglib.models.checkpoints import load_model
from coseglib.unsupervised.clustered import ClusterJob, axes_of, clusters_of
from coseglib.unsupervised.configuration import load_online
from coseglib.unsupervised.learner import co_segment, train_on_group


def _config(**fields):
    return load_online("workbook").replaced(
        backbone="resnet10", extractor="resnet10", input_size=96, epochs=3, precision="32-true", axes=12, **fields
    )


@pytest.fixture(scope="module")
def scenes():
    return drawn_groups(1, 8)[0]


@pytest.fixture(scope="module")
def job(scenes):
    return ClusterJob(scenes.photos, 2, _config())


def test_axes_are_principal_and_half_whitened_and_the_offset_is_what_centres_them():
    torch.manual_seed(0)
    x = torch.randn(400, 6) * torch.tensor([4.0, 2, 1, 1, 0.5, 0.5]) + 3
    centre, axes, offset = axes_of(x, 3)
    unit = F.normalize(x - x.mean(0), dim=1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    for k in range(3):
        wanted = vectors[:, -1 - k] / values[-1 - k] ** 0.25  # the root of the standard deviation
        assert abs(abs(float(axes[k] @ torch.from_numpy(wanted).float())) - float(axes[k].norm()) ** 2) < 1e-2
    found = F.normalize(x - centre, dim=1) @ axes.T - offset
    torch.testing.assert_close(found.mean(0), torch.zeros(3), rtol=0, atol=1e-4)


def test_positions_that_are_all_alike_have_no_axes_and_fewer_points_than_clusters_are_enough():
    assert not axes_of(torch.ones(9, 4), 3)[1].any()
    centres = clusters_of(np.eye(2, 5, dtype=np.float32), np.ones(2), 4, seed=0)
    assert centres.shape == (4, 5) and torch.allclose(centres.norm(dim=1), torch.ones(4))


def test_the_loss_that_training_takes_equals_loops_over_pairs_classes_and_positions(job):
    """Eqs. (4) to (7) of F weighed by the soft-max maps, with balance and border, by plain loops in float64."""
    model, numbers = job.generator(), [2, 0, 5]
    found = job.losses(model, numbers)
    features = F.normalize(F.avg_pool2d(job.features[numbers], 2, ceil_mode=True), dim=1)
    e = F.avg_pool2d(job.evidence[numbers][:, None], 2, ceil_mode=True)[:, 0]
    maps = model.generate(features[None], e[None]).logits[0].softmax(dim=1).detach().double()
    n, k, h, w = maps.shape
    seen = [[sum(maps[i, c, y, x] * features[i, :, y, x] for y in range(h) for x in range(w)) / maps[i, c].sum()
             for c in range(k)] for i in range(n)]  # fmt: skip
    total = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            for c in range(1, k):
                within = float((seen[i][c] - seen[j][c]).square().sum())
                apart = [float((seen[p][c] - seen[p][o]).square().sum()) for p in (i, j) for o in range(k) if o != c]
                total += math.log(1 + math.exp(within - sum(apart) / len(apart)))
    assert math.isclose(found["co_attention"].item(), total, rel_tol=1e-4)
    shares = maps.mean(dim=(2, 3)).tolist()
    wanted = [0.5, 0.25, 0.25]
    balance = sum(s * math.log(s / q) for row in shares for s, q in zip(row, wanted, strict=True)) / n
    assert math.isclose(found["balance"].item(), 0.5 * 6 * balance, rel_tol=1e-3)  # 3 pairs of 2 classes
    rim = [(y, x) for y in range(h) for x in range(w) if y in (0, h - 1) or x in (0, w - 1)]
    outside = sum(float(1 - maps[i, 0, y, x]) for i in range(n) for y, x in rim) / len(rim) / n
    assert math.isclose(found["border"].item(), 0.5 * 6 * outside, rel_tol=1e-3)


def test_the_frozen_network_is_left_alone_and_all_else_learns_and_lowers_the_loss(job):
    model = job.generator()
    network = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    before = {k: v.clone() for k, v in model.named_parameters() if not k.startswith("backbone.")}
    log = job.optimise(model, 3e-3, 6, lambda text: None)
    assert log.loss.iloc[-1] < log.loss.iloc[0]
    assert all(torch.equal(v, network[k]) for k, v in model.backbone.state_dict().items())
    unmoved = [k for k, v in model.named_parameters() if k in before and torch.equal(v, before[k])]
    assert unmoved == []


def test_a_start_from_clusters_is_nearer_to_the_answer_than_a_random_one(job, scenes):
    def loss(start):
        job.config, before = job.config.replaced(start=start), job.config
        try:
            model = job.generator()
            return float(sum(job.losses(model, list(range(8))).values()).detach())
        finally:
            job.config = before

    assert loss("clusters") < loss("random")


def test_one_seed_gives_one_answer_and_a_saved_generator_gives_it_bit_for_bit(scenes, tmp_path):
    found = co_segment(scenes.photos, 2, _config(post="argmax"))
    file = train_on_group(scenes, 2, _config(post="argmax"), tmp_path / "run")
    again = co_segment(scenes.photos, 2, _config(post="argmax"))
    saved = load_model(file)
    assert saved.variant == "workbook" and saved.card["trust"].keys() >= {"pairs", "still", "alike"}
    for one, other in zip(found.labels(), again.labels(), strict=True):
        assert torch.equal(one, other)
    again.generator = saved
    again.__dict__.pop("_engine")
    assert all(torch.equal(a, b) for a, b in zip(found.labels(), again.labels(), strict=True))


def test_masks_are_never_read(scenes, monkeypatch):
    def read(*_):
        raise AssertionError("a mask was read")

    monkeypatch.setattr("coseglib.data.record.Photo.mask", read)
    co_segment(scenes.photos[:4], 2, _config())


@pytest.mark.parametrize("fields", [{"stride": 32}, {"layer": 3}, {"centred": False}, {"evident": False}])
@pytest.mark.parametrize("classes", [1, 3])
def test_each_trial_of_a_cause_runs(scenes, fields, classes):
    found = co_segment(scenes.photos[:4], classes, _config(**fields))
    assert found.maps.shape == (4, classes + 1, 96, 96) and bool(found.maps.isfinite().all())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [0, 255])
def test_constant_photographs_are_segmented_into_something_finite(count, value):
    photos = [torch.full((3, 40, 50), value, dtype=torch.uint8)] * count
    found = co_segment(photos, 2, _config())
    assert bool(found.maps.isfinite().all())


def test_k_can_be_found_by_the_workbooks_generator_alone(scenes):
    with pytest.raises(CosegError, match="--profile workbook"):
        co_segment(scenes.photos, None, load_online("smoke"))
