"""The smallest models with the faces of the three kinds: one convolution, eight channels."""

import torch
from torch import nn

from coseglib.models.contract import ContextModel, GroupModel, Output, PartnerModel


class Tiny:
    precision = "32-true"

    def __init__(self, input_size: int = 32):
        super().__init__(None, "paper", input_size)
        generator = torch.Generator().manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 8)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.eval()

    def encode(self, images):
        return [self.convolution(images - 0.5)]


class TinyContext(Tiny, ContextModel):
    context_size = 8

    def attention(self, features):
        return torch.sigmoid(3 * self.linear(features[0].mean(dim=(-2, -1))))

    def answer(self, features, context):
        foreground = (features[0] * (context.expand(len(features[0]), -1)[..., None, None] - 0.4)).sum(1)
        return torch.stack([0 * foreground, foreground], dim=1)


class TinyPartner(Tiny, PartnerModel):
    """The foreground is where an image's features agree with the mean of its partner's."""

    def answer(self, query, reference):
        foreground = (query[0] * reference[0].mean(dim=(-2, -1), keepdim=True)).sum(1)
        return Output(torch.stack([0 * foreground, foreground], dim=1))


class TinyGroup(Tiny, GroupModel):
    """The foreground is where an image's features agree with the mean of all images that it is given with."""

    group_size = 3

    def answer(self, images, weights=None):
        f = self.encode(images[0])[0]
        foreground = (f * f.mean(dim=(0, 2, 3))[:, None, None]).sum(1)
        return Output(torch.stack([0 * foreground, foreground], dim=1)[None])
