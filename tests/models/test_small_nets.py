"""The networks that are ours are torchvision's: names, first weights and numbers."""

import torch
import torchvision.models as zoo
from torchvision.models.resnet import BasicBlock as TheirBlock

from coseglib.models.small_nets import BasicBlock, MobileNetV2


def _same(theirs, ours, x):
    want, have = theirs.state_dict(), ours.state_dict()
    assert list(want) == list(have)
    assert all(torch.equal(want[name], have[name]) for name in want)
    with torch.no_grad():
        assert torch.equal(theirs.eval()(x), ours.eval()(x))


def test_mobilenet_is_torchvisions():
    torch.manual_seed(0)
    theirs = zoo.mobilenet_v2()
    torch.manual_seed(0)
    _same(theirs, MobileNetV2(), torch.rand(2, 3, 96, 64))


def test_the_basic_block_is_torchvisions():
    torch.manual_seed(0)
    shortcut = torch.nn.Conv2d(8, 16, 1, 2)
    theirs, ours = TheirBlock(8, 16, 2, shortcut), BasicBlock(8, 16, 2, shortcut)
    ours.load_state_dict(theirs.state_dict())
    _same(theirs, ours, torch.rand(2, 8, 12, 10))
    theirs, ours = TheirBlock(8, 8), BasicBlock(8, 8)
    ours.load_state_dict(theirs.state_dict())
    _same(theirs, ours, torch.rand(2, 8, 12, 10))
