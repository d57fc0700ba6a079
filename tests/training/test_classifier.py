import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from coseglib.core.errors import CosegError
from coseglib.core.paths import NAMING
from coseglib.data.by_class import PRESENT
from coseglib.data.cache import TrainingSet, training_set
from coseglib.data.synthetic import synthetic_photos
from coseglib.models import backbones
from coseglib.models.backbones import build_backbone
from coseglib.training import classifier
from coseglib.training.configuration import load_profile


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return training_set(synthetic_photos(count=40, size=48), 48, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(classifier, "HELD_OUT", 8)
    monkeypatch.setattr(classifier, "BATCH", 16)


def test_a_class_is_there_where_its_pixels_are(photos):
    images, present = classifier.named(photos, torch.arange(40), lambda image, labels: (image, labels))
    assert images.shape == (40, 3, 48, 48) and images.max() <= 1
    for i in range(40):
        _, labels = photos.photo(i)
        for k in range(len(photos.classes)):
            covered = sum(int(v == k + 1) for v in labels.flatten().tolist()) / 48**2
            assert bool(present[i, k]) == (covered >= PRESENT)


def test_a_few_steps_learn_and_are_the_same_every_time(few):
    """Three classes, told apart by their colours, each of which fills half of its picture."""
    labels = np.zeros((40, 32, 32), np.uint8)
    labels[:, 8:24] = (np.arange(40) % 3 + 1)[:, None, None]
    images = np.stack([np.where(labels == k, 220, 90) for k in (1, 2, 3)], axis=1).astype(np.uint8)
    there = np.eye(3, dtype=bool)[np.arange(40) % 3]
    planted = TrainingSet(images, labels, there / 2, there, tuple("abc"), tuple(f"drawn/{i}" for i in range(40)))
    config = load_profile("scenes", "ca", {"input_size": 32})
    (one, right), (two, again) = (classifier.train_classifier(planted, config, 40, quiet=True) for _ in range(2))
    assert right == again == 1
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_shipped_weights_are_what_is_built_and_say_how_they_were_made(monkeypatch, tmp_path):
    file = NAMING / f"{classifier.NAME}.safetensors"
    net, new = build_backbone(classifier.NAME), build_backbone(classifier.NAME, weights=None)
    with safe_open(file, "pt") as shipped:
        made = json.loads(shipped.metadata()["made"])
        assert torch.equal(net.stages[0][0].weight, shipped.get_tensor("stages.0.0.weight").float())
    assert not torch.equal(net.stages[0][0].weight, new.stages[0][0].weight)
    assert (made["steps"], made["seed"]) == (classifier.STEPS, 0) and made["likeliest class is in the picture"] > 0.8
    assert file.stat().st_size < 1.5e6
    monkeypatch.setattr(backbones, "NAMING", tmp_path)
    with pytest.raises(CosegError, match=r"no such file; `python -m coseglib.training.classifier`"):
        build_backbone(classifier.NAME)
