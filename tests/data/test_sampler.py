import dataclasses

import numpy as np
import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.data.cache import TrainingSet, training_set, vocabulary
from coseglib.data.record import Photo
from coseglib.data.sampler import MADE, GroupSampler, augmentation, target_of
from coseglib.data.sets import msrc

SIDE = 32


def _photo(name: str, classes: tuple[str, ...], boxes: dict[int, tuple[slice, slice]]) -> Photo:
    labels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    for label, box in boxes.items():
        labels[box] = label
    image = (labels * 60).expand(3, SIDE, SIDE).contiguous()
    return Photo("made", name, classes, lambda: image, lambda: labels)


@pytest.fixture
def photographs(tmp_path) -> TrainingSet:
    """Six photographs of a cat, six of a dog, three of both, four of grass, each labelled in its own vocabulary."""
    names = ("dog", "grass", "cat")
    left, right = (slice(4, 28), slice(0, 14)), (slice(4, 28), slice(18, 32))
    photos = [_photo(f"cat{i}", names, {3: left}) for i in range(6)]
    photos += [_photo(f"dog{i}", names, {1: right}) for i in range(6)]
    photos += [_photo(f"both{i}", names, {3: left, 1: right}) for i in range(3)]
    photos += [_photo(f"grass{i}", names, {2: left}) for i in range(4)]
    return training_set(photos, SIDE, folder=tmp_path)


def test_what_surrounds_objects_is_never_asked_for():
    asked = vocabulary([_photo("street", msrc.CLASSES, {})])
    assert not set(asked) & msrc.SURROUNDINGS and {"car", "aeroplane", "person"} <= set(asked)


def test_scenery_is_asked_for_where_a_photograph_holds_no_object_and_known_wherever_it_is(tmp_path):
    left, right = (slice(4, 28), slice(0, 14)), (slice(4, 28), slice(18, 32))
    names = ("building", "sky", "car")
    photos = [_photo("house", names, {1: left, 2: right}), _photo("both", names, {1: left, 3: right})]
    found = training_set(photos, SIDE, folder=tmp_path, scenery=True)
    assert found.classes == ("car", "building")
    assert np.unique(found.labels[0]).tolist() == [0, 2] and np.unique(found.labels[1]).tolist() == [0, 1]
    assert (found.areas > 0).tolist() == [[False, True], [True, False]]
    assert found.holds[:, :2].tolist() == [[False, True], [True, True]]
    usual = training_set(photos, SIDE, folder=tmp_path)
    assert usual.classes == ("car",) and np.unique(usual.labels[1]).tolist() == [0, 1] and not usual.labels[0].any()


def test_the_cache_speaks_one_vocabulary_and_stuff_is_background(photographs):
    assert photographs.classes == ("cat", "dog")
    assert photographs.areas[photographs.names.index("made/grass0")].sum() == 0
    both = photographs.names.index("made/both0")
    share = 24 * 14 / SIDE**2
    np.testing.assert_allclose(photographs.areas[both], [share, share], rtol=1e-6)


def test_a_cache_is_read_again_and_not_shared_by_other_photographs(tmp_path):
    one = [_photo("a", ("cat",), {1: (slice(4, 28), slice(0, 14))})]
    training_set(one, SIDE, folder=tmp_path)
    training_set(one, SIDE, folder=tmp_path)
    assert len(list(tmp_path.glob("32-*"))) == 1
    training_set([_photo("b", ("cat",), {})], SIDE, folder=tmp_path)
    assert len(list(tmp_path.glob("32-*"))) == 2


def test_a_batch_is_a_function_of_seed_and_step_alone(photographs):
    def batch(step, **fields):
        return GroupSampler(photographs, groups=3, side=SIDE, shares=(1, 1, 1), **fields)[step]

    for field in ("images", "targets", "weights"):
        assert torch.equal(getattr(batch(7), field), getattr(batch(7), field))
    assert not torch.equal(batch(7).images, batch(8).images)
    assert not torch.equal(batch(7).images, batch(7, seed=1).images)
    assert not torch.equal(batch(7).images, batch(7, rank=1).images)


def test_drawing_a_batch_leaves_the_global_generator_alone(photographs):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    GroupSampler(photographs, groups=2, side=SIDE)[0]
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_plain_groups_share_exactly_the_class_that_is_asked(photographs, size):
    sampler = GroupSampler(photographs, size=size, side=SIDE)
    for step in range(30):
        question = sampler.plain(np.random.default_rng(step))
        held = sampler.present[list(question.photos)].all(0)
        assert set(question.targets) == {int(np.flatnonzero(held)[0]) + 1}
        assert held.sum() == 1
        torch.testing.assert_close(question.weights.sum(1), torch.ones(size))
        assert question.weights.diagonal().sum() == 0


def test_a_class_of_two_sets_is_drawn_from_each_as_from_a_class_of_its_own(photographs):
    names = tuple(f"{'small' if i % 6 == 0 else 'large'}/{i}" for i in range(len(photographs)))
    both = dataclasses.replace(photographs, names=names)
    mixed, apart = (GroupSampler(both, side=SIDE, by_set=by_set) for by_set in (False, True))
    assert [c for c, _ in mixed.pools] == mixed.usable.tolist()
    for c, pool in apart.pools:
        sets = {names[i].split("/")[0] for i in pool}
        whole = [i for i in mixed.holding[c] if names[i].split("/")[0] in sets]
        assert len(sets) == 1 and pool.tolist() == whole
    torch.testing.assert_close(
        apart.chances**2 / apart.chances[0] ** 2, np.array([len(p) for _, p in apart.pools]) / len(apart.pools[0][1])
    )

    def share(sampler) -> float:
        drawn = [i for step in range(60) for i in sampler.plain(np.random.default_rng(step)).photos]
        return sum(names[i].startswith("small") for i in drawn) / len(drawn)

    assert share(apart) > 1.3 * share(mixed)
    for step in range(20):
        question = apart.plain(np.random.default_rng(step))
        assert len({names[i].split("/")[0] for i in question.photos}) == 1
    with pytest.raises(CosegError, match="leave out by_set"):
        GroupSampler(dataclasses.replace(both, names=tuple(f"{i}/x" for i in range(len(both)))), side=SIDE, by_set=True)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_hard_groups_hold_a_second_class_that_the_partners_lack(photographs, size):
    sampler = GroupSampler(photographs, size=size, side=SIDE, shares=(0, 1, 0), pasted=0)
    for step in range(20):
        question = sampler.hard(np.random.default_rng(step))
        distracted, rest = question.photos[: size // 2], question.photos[size // 2 :]
        assert sampler.present[list(distracted)].all()
        asked = question.targets[0] - 1
        assert sampler.present[list(rest)][:, asked].all() and not sampler.present[list(rest)][:, 1 - asked].any()


def test_pasted_groups_ask_for_the_guest_as_often_as_for_the_ground(photographs):
    sampler = GroupSampler(photographs, side=SIDE, shares=(0, 1, 0), pasted=1)
    guests = 0
    for step in range(60):
        question = sampler.hard(np.random.default_rng(step))
        ((place, donor, label),) = question.pastes
        assert place == 0 and sampler.present[donor, label - 1]
        assert not sampler.present[question.photos[0], label - 1]  # the guest is new there
        guests += question.targets[0] == label
    assert 15 < guests < 45


@pytest.mark.parametrize("size", [2, 3, 4])
def test_empty_groups_meet_only_partners_with_nothing_in_common(photographs, size):
    sampler = GroupSampler(photographs, size=size, side=SIDE, shares=(0, 0, 1))
    for step in range(20):
        question = sampler.empty(np.random.default_rng(step))
        assert set(question.targets) == {0}
        torch.testing.assert_close(question.weights.sum(1), torch.ones(size))
        for i, j in question.weights.nonzero().tolist():
            assert not (sampler.present[question.photos[i]] & sampler.present[question.photos[j]]).any()


def test_twins_are_one_photograph(photographs):
    question = GroupSampler(photographs, size=4, side=SIDE, twins=1).plain(np.random.default_rng(0))
    assert len(set(question.photos)) == 1


def test_batches_of_several_sides_have_about_as_many_pixels_and_one_side_in_all_processes(photographs):
    shapes = set()
    for step in range(12):
        ranks = [GroupSampler(photographs, groups=2, side=(16, 32), rank=r)[step].images.shape for r in (0, 1)]
        assert ranks[0] == ranks[1]
        shapes.add((ranks[0][0], ranks[0][-1]))
    assert shapes == {(8, 16), (2, 32)}


def test_a_target_keeps_void_and_nothing_else():
    labels = torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8)
    assert target_of(labels, 2).tolist() == [[0, 0, 1, 255]]
    assert target_of(labels, 0).tolist() == [[0, 0, 0, 255]]


def test_image_and_mask_are_augmented_alike():
    """A picture whose brightness is its label: after any crop and flip the two still agree."""
    labels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    labels[:, :9], labels[:11] = 1, 1
    from torchvision import tv_tensors

    image = tv_tensors.Image((labels * 255).expand(3, SIDE, SIDE).contiguous())
    for seed in range(5):
        torch.manual_seed(seed)
        x, t = augmentation(SIDE, colour=0)(image, tv_tensors.Mask(labels))
        agree = ((x[0] > 127) == (t == 1)).float().mean()
        assert agree > 0.9 and set(t.unique().tolist()) <= {0, 1}


def test_groups_of_one_and_sets_too_small_are_refused(photographs):
    with pytest.raises(CosegError, match="group_size"):
        GroupSampler(photographs, size=1)
    with pytest.raises(CosegError, match="no class"):
        GroupSampler(photographs, size=40)


@pytest.mark.parametrize("size", [2, 3])
def test_a_share_of_the_groups_is_asked_by_example(photographs, size):
    """What is marked is what is asked for; where nothing is common, a partner shows what the photograph lacks."""
    sampler = GroupSampler(photographs, size=size, groups=40, side=SIDE, shares=(1, 1, 1), pasted=0.5, examples=0.4)
    batch, rng = sampler[0], np.random.default_rng((0, 0, 0, 1))
    plans = [sampler.plan(rng) for _ in range(40)]
    assert 6 < sum(bool(plan.marks) for plan in plans) < 26
    for plan, marks, targets in zip(plans, batch.marks, batch.targets, strict=True):
        if not plan.marks:
            assert not marks.any()
        elif plan.kind == "empty":
            assert not (targets == 1).any() and marks.flatten(1).any(dim=1).all()
            held = [sampler.holds[i] for i in plan.photos]
            for i, j in plan.weights.nonzero().tolist():
                assert not held[i][plan.marks[j] - 1]
        else:
            assert plan.marks == plan.targets and torch.equal(marks == 1, targets == 1) and marks.any()


def test_of_two_things_in_every_photograph_only_marks_can_tell(photographs):
    sampler = GroupSampler(photographs, size=3, side=SIDE, shares=(0, 1, 0), pasted=0, examples=1)
    plans = [sampler.plan(np.random.default_rng(step)) for step in range(30)]
    both = [plan for plan in plans if sampler.present[list(plan.photos)].all()]
    assert 5 < len(both) < 25 and {plan.marks[0] for plan in both} == {1, 2}
    assert all(plan.marks == plan.targets for plan in plans)


def test_without_examples_nothing_is_drawn_for_them(photographs):
    usual = GroupSampler(photographs, groups=4, side=SIDE, shares=(1, 1, 1))
    assert usual[3].marks is None
    drawn = [usual.plan(np.random.default_rng(step)).photos for step in range(5)]
    kinds = [np.random.default_rng(step).choice(3, p=usual.shares) for step in range(5)]
    assert [usual.plan(np.random.default_rng(s)).kind for s in range(5)] == [
        ("plain", "hard", "empty")[k] for k in kinds
    ]
    assert drawn == [usual.plan(np.random.default_rng(step)).photos for step in range(5)]


@pytest.mark.parametrize("size", [2, 4])
def test_made_groups_have_a_made_thing_in_common_and_no_class(photographs, size):
    """Distractors stand in half of them; where the halves have a thing each, nothing is asked for."""
    sampler, kinds = GroupSampler(photographs, size=size, groups=1, side=SIDE, made=1), []
    if size > len(photographs.classes):  # no four photographs without a class in common here
        assert sampler.plan(np.random.default_rng(0)).kind == "plain"
        return
    for step in range(30):
        plan = sampler.plan(np.random.default_rng(step))
        kinds.append(plan.kind)
        assert not sampler.holds[list(plan.photos)].all(0).any()
        asked = {n: thing for n, thing, label in plan.things if label == MADE}
        others = [n for n, _, label in plan.things if label != MADE]
        torch.testing.assert_close(plan.weights.sum(1), torch.ones(size))
        if plan.kind == "made":
            assert set(plan.targets) == {MADE} and len(set(asked.values())) == 1 and others == [*range(size // 2)]
        else:
            assert set(plan.targets) == {0} and len(set(asked.values())) == 2 and not others
    assert 15 < kinds.count("made") < 30 and set(kinds) == {"made", "empty"}


def test_targets_of_made_groups_are_the_thing_alone_and_name_no_class(photographs):
    sampler = GroupSampler(photographs, groups=8, side=SIDE, made=1, examples=0.5, crop=(1.0, 1.0))
    batch, rng = sampler[1], np.random.default_rng((0, 1, 0, 1))
    plans = [sampler.plan(rng) for _ in range(8)]
    assert batch.kinds == tuple(plan.kind for plan in plans) and "made" in batch.kinds
    assert not batch.classes.any() and any(plan.marks for plan in plans)
    for plan, targets, marks in zip(plans, batch.targets, batch.marks, strict=True):
        shown = (targets == 1).flatten(1).float().mean(1)
        assert (shown > 0.01).all() and (shown < 0.6).all() if plan.kind == "made" else not shown.any()
        assert (marks == 1).any() == bool(plan.marks)


def test_without_made_groups_nothing_is_drawn_for_them(photographs):
    usual, none = (GroupSampler(photographs, groups=4, side=SIDE, shares=(1, 1, 1), **f) for f in ({}, {"made": 0.0}))
    assert torch.equal(usual[3].images, none[3].images)
