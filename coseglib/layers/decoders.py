"""Decoders: from feature maps back to logits at the image's size."""

from torch import Tensor, cat, nn
from torch.nn import functional as F

DROPOUT = 0.1  # of channels


def conv_bn_relu(channels: int, width: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class PlainDecoder(nn.Module):
    """Chen et al. 2018, section 3.5: five times ×2, no skip connections (skips bring back every object-like region).

    (B, C, h, w) -> logits (B, 2, 32h, 32w).
    """

    def __init__(self, channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for width in (256, 128, 64, 32):
            layers += [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.ReLU(inplace=True), nn.BatchNorm2d(width), nn.Dropout2d(DROPOUT)]
            channels = width
        layers += [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(channels, 2, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, f: Tensor) -> Tensor:
        return self.layers(f)


class LateralDecoder(nn.Module):
    """The workbook's decoder: top-down with laterals to stride 4, then 1×1 to logits and ×4 up.

    maps, coarsest first: (B, C_s, h_s, w_s) at strides 32, 16, 8, 4 -> logits (B, classes, 4 h_4, 4 w_4).
    """

    def __init__(self, channels: tuple[int, ...], classes: int = 2):
        super().__init__()
        widths, above = (128, 96, 64, 48), (0, 128, 96, 64)
        self.laterals = nn.ModuleList(conv_bn_relu(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.blocks = nn.ModuleList(conv_bn_relu(a + w, w, 3) for a, w in zip(above, widths, strict=True))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.logits = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = None
        for f, lateral, block in zip(maps, self.laterals, self.blocks, strict=True):
            f = lateral(f)
            if x is not None:
                f = cat([F.interpolate(x, size=f.shape[-2:], mode="bilinear"), f], dim=1)
            x = block(f)
        logits = self.logits(self.dropout(x)).contiguous()  # two channels last: six times as slow to enlarge
        return F.interpolate(logits, scale_factor=4, mode="bilinear")
