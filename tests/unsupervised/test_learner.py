import dataclasses
import math
import re

import pytest
import torch
from square_and_disc import group_of, photos_of, scene

from coseglib.answering.answers import Engine, whole_group
from coseglib.core.errors import CosegError
from coseglib.data.images import read_labels, write_png
from coseglib.evaluation.tables import ABLATIONS
from coseglib.models.checkpoints import load_model
from coseglib.models.multiclass import terms
from coseglib.segmenting.job import segment_photos
from coseglib.unsupervised.configuration import group_of_files, load_online
from coseglib.unsupervised.jobs import LearningJob
from coseglib.unsupervised.learner import co_segment, train_on_group

FAST = load_online("smoke", {"epochs": 1})


# One group ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_maps_and_leaves_torchs_generator_alone():
    photos = photos_of(2)
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    one = co_segment(photos, 2, FAST)
    assert torch.equal(torch.rand(1), want)
    torch.manual_seed(99)
    two = co_segment(photos, 2, FAST)
    assert torch.equal(one.maps, two.maps) and one.log.loss.tolist() == two.log.loss.tolist()
    other = co_segment(photos, 2, FAST.replaced(seed=1))
    assert not torch.equal(one.maps, other.maps)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_group_of_any_number_and_of_different_sizes_has_labels_at_each_photographs_own_size(count):
    sizes = [(48, 64), (64, 40), (33, 71), (50, 50), (20, 90), (64, 64), (41, 43)][:count]
    photos = [scene(i, size)[0] for i, size in enumerate(sizes)]
    found = co_segment(photos, 2, FAST)
    for post in ("argmax", "crf"):
        labels = found.labels(post)
        assert [tuple(m.shape) for m in labels] == sizes
        assert all(m.dtype == torch.uint8 and int(m.max()) <= 2 for m in labels)
    assert found.maps.shape == (count, 3, 64, 64)
    torch.testing.assert_close(found.maps.sum(1), torch.ones(count, 64, 64))


@pytest.mark.parametrize("classes", [1, 5])
def test_k_is_the_users_and_may_be_more_than_there_are(classes):
    found = co_segment(photos_of(3), classes, FAST)
    assert found.maps.shape[1] == classes + 1 and bool(found.maps.isfinite().all())
    assert math.isfinite(found.log.loss.iloc[-1])


def test_masks_are_never_read():
    def forbidden():
        raise AssertionError("a mask was read")

    photos = [dataclasses.replace(p, read_labels=forbidden) for p in group_of(3).photos]
    config = FAST.replaced(learning_rate=None, learning_rates=(1e-4, 1e-3), trial_epochs=1)
    assert len(co_segment(photos, 2, config).labels("crf")) == 3


def test_learning_lowers_the_loss():
    found = co_segment(photos_of(6), 2, FAST.replaced(epochs=5, masking="features", patience=5))
    assert found.log.loss.iloc[-1] < found.log.loss.iloc[0] - 0.01
    assert found.log.epoch.tolist() == [1, 2, 3, 4, 5] and found.log.seconds.is_monotonic_increasing


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("masking", ["image", "features"])
def test_each_ablation_and_masking_runs(name, masking):
    config = FAST.replaced(masking=masking, balance=0.5, border=0.5, gamma_rate=10.0, **ABLATIONS[name])
    found = co_segment(photos_of(2), 2, config)
    assert bool(found.maps.isfinite().all())
    assert (found.generator.self_attention is not None) == ("SA" in name)
    assert (found.generator.mutual_attention is not None) == ("MA" in name)


@pytest.mark.parametrize(("value", "masking"), [(0, "image"), (128, "features"), (255, "image")])
def test_constant_photographs_are_segmented_into_something_finite(value, masking):
    photos = [torch.full((3, 30, 40), value, dtype=torch.uint8)] * 2
    found = co_segment(photos, 2, FAST.replaced(masking=masking))
    assert bool(found.maps.isfinite().all()) and len(found.labels("crf")) == 2


def test_bfloat16_gives_float32_maps():
    found = co_segment(photos_of(3), 2, FAST.replaced(precision="bf16-mixed"))
    assert found.maps.dtype == torch.float32 and bool(found.maps.isfinite().all())


def test_every_photograph_is_in_every_epoch_and_batches_are_full_and_without_twins():
    job = LearningJob(photos_of(7), 2, FAST)
    for epoch in range(3):
        batches = job.batches(epoch)
        assert sorted({i for batch in batches for i in batch}) == list(range(7))
        assert [len(set(batch)) for batch in batches] == [3, 3, 3]
    assert job.batches(0) == job.batches(0) != job.batches(1)
    assert LearningJob(photos_of(2), 2, FAST).batches(0) in ([[0, 1]], [[1, 0]])


def test_maps_do_not_depend_on_how_many_images_attend_each_other_without_mutual_attention():
    job = LearningJob(photos_of(5), 2, FAST.replaced(mutual_attention=False))
    whole, parted = (job.generator().eval() for _ in range(2))
    parted.group_size = 2
    want, found = (_maps(model, photos_of(5)) for model in (whole, parted))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


def _maps(generator, photos) -> torch.Tensor:
    return torch.stack([a.logits.softmax(0) for a in Engine(generator, photos).answers(whole_group(len(photos)))])


@pytest.mark.parametrize("post", ["argmax", "crf"])
def test_maps_and_labels_are_those_of_the_saved_generator_bit_for_bit(tmp_path, post):
    """Ten photographs: a set of eight and one that is filled up. `coseg segment` writes what a table scores."""
    (tmp_path / "photos").mkdir()
    for i in range(10):
        write_png(tmp_path / "photos" / f"{i}.png", scene(i, (40, 50 + i))[0])
    group, config = group_of_files([tmp_path / "photos"]), FAST.replaced(post=post)
    found = co_segment(group.photos, 2, config)
    saved = load_model(train_on_group(group, 2, config, tmp_path / "run"))
    assert torch.equal(found.maps, _maps(saved, group.photos))
    segment_photos([tmp_path / "photos"], tmp_path / "out", saved, quiet=True)
    for i, labels in enumerate(found.labels()):
        assert torch.equal(labels, read_labels(tmp_path / "out" / "masks" / f"{i}.png")), i
    assert all(len(labels.unique()) > 1 for labels in found.labels())  # they agree on something


def test_random_networks_are_normalised_on_the_groups_own_images_and_pretrained_ones_are_left_alone(
    real_weights, monkeypatch
):
    job = LearningJob(photos_of(4), 2, FAST)
    images = job.images.clone()
    assert float(job.extractor.describe(images).std()) > 0.01
    monkeypatch.setenv("COSEG_WEIGHTS", str(real_weights))
    kept = LearningJob(photos_of(4), 2, FAST.replaced(pretrained=True))
    model = kept.generator()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items() if "running" in k}
    kept.optimise(model, 1e-4, 1, lambda text: None)
    after = model.backbone.state_dict()
    assert before and all(torch.equal(v, after[k]) for k, v in before.items())


# The loss decides -----------------------------------------------------------------------------------------------------


def _scripted(monkeypatch, losses):
    """Jobs whose loss of epoch 1, 2, … is that of the script (one step an epoch)."""
    script = iter(losses)

    def loss(self, model, numbers):
        value = next(script)
        anything = sum(p.sum() for p in model.parameters() if p.requires_grad)
        return {"co_attention": anything * 0 + value * terms(len(numbers), self.classes)}

    monkeypatch.setattr(LearningJob, "losses", loss)


def test_a_run_stops_when_the_loss_stays_and_keeps_the_weights_of_the_lowest(monkeypatch):
    _scripted(monkeypatch, [0.69, 0.50, 0.52, 0.4999, 0.55, 0.1, 0.1])
    seen = []
    job = LearningJob(photos_of(3), 2, FAST.replaced(patience=3, tolerance=1e-3, weight_decay=0.5))
    model = job.generator()
    original = torch.optim.Adam.step

    def step(self, *args):
        result = original(self, *args)
        seen.append(model.decoder.scores[0].weight.detach().clone())
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    log = job.optimise(model, 1e-3, 10, lambda text: None)
    assert log.loss.tolist() == pytest.approx([0.69, 0.50, 0.52, 0.4999, 0.55])  # 0.4999 is no improvement of 0.001
    assert torch.equal(model.decoder.scores[0].weight, seen[1])  # weight decay moved them on since


def test_the_rate_of_the_lowest_loss_is_chosen_and_all_are_recorded(monkeypatch):
    _scripted(monkeypatch, [0.7, 0.6, 0.7, 0.4, float("nan"), 0.9, 0.5])
    config = FAST.replaced(learning_rate=None, learning_rates=(1e-5, 1e-4, 1e-3, 1e-2), trial_epochs=2)
    rate, trials = LearningJob(photos_of(3), 2, config).choose_learning_rate()
    assert rate == 1e-4
    assert trials.learning_rate.tolist() == [1e-5, 1e-4, 1e-3, 1e-2]
    assert trials.loss.tolist() == pytest.approx([0.6, 0.4, float("nan"), 0.5], nan_ok=True)
    assert trials.epochs.tolist() == [2, 2, 1, 2]


def test_the_chosen_rate_is_the_one_that_is_used():
    config = FAST.replaced(learning_rate=None, learning_rates=(1e-6, 1e-3), trial_epochs=1)
    found = co_segment(photos_of(2), 2, config)
    assert found.learning_rate == found.trials.learning_rate[found.trials.loss.idxmin()]
    given = co_segment(photos_of(2), 2, config.replaced(learning_rate=found.learning_rate))
    assert torch.equal(given.maps, found.maps) and given.trials.empty


def test_a_loss_that_is_not_finite_is_an_error_in_one_line(monkeypatch):
    _scripted(monkeypatch, [float("nan")])
    with pytest.raises(CosegError, match=r"learning rate 0.001: the loss is not finite in epoch 1; give a smaller one"):
        co_segment(photos_of(3), 2, FAST)
    _scripted(monkeypatch, [float("inf"), float("nan")])
    config = FAST.replaced(learning_rate=None, learning_rates=(1.0, 2.0))
    with pytest.raises(CosegError, match="not finite at any of them"):
        co_segment(photos_of(3), 2, config)


def test_progress_tells_the_epoch_the_loss_and_the_time_left():
    lines = []
    co_segment(photos_of(3), 2, FAST.replaced(epochs=2), lines.append)
    assert len(lines) == 2
    for epoch, line in enumerate(lines, start=1):
        said = r"loss \d\.\d{4}, of it pairs \d\.\d{4} \(chance 0\.693\)"
        assert re.fullmatch(rf"epoch {epoch} of 2, step 1 of 1: {said}, \d+:\d\d:\d\d left", line), line


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_what_is_set_beside_chance_is_the_pairs_term_without_balance_and_border(weight):
    job = LearningJob(photos_of(3), 2, FAST.replaced(balance=weight, border=weight))
    log = job.optimise(job.generator(), 1e-9, 1, lambda text: None)  # one step of three images, hardly moved
    torch.manual_seed(0)  # dropout's
    first = job.losses(job.generator().train(), job.batches(0)[0])
    assert log.pairs[0] == pytest.approx(first["co_attention"].item() / 6, rel=1e-5)  # three pairs, two classes
    assert log.loss[0] == pytest.approx(sum(first.values()).item() / 6, rel=1e-5)
    assert (log.loss[0] - log.pairs[0] > 0.1) == (weight > 0)


def test_no_photographs_and_no_classes_are_errors():
    with pytest.raises(CosegError, match="no photographs"):
        co_segment([], 2, FAST)
    with pytest.raises(CosegError, match="K is 1 to 254"):
        co_segment(photos_of(2), 0, FAST)
