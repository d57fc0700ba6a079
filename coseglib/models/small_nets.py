"""MobileNetV2 and ResNet's basic block, with torchvision's names, numbers and first weights.

Shipped checkpoints stand on them, and to import torchvision takes two seconds that `coseg segment` would wait for.
"""

from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST, CLASSES = 32, 1280, 1000  # channels of the first and the last convolution, classes of ImageNet


def _conv_bn(channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1×1 to `factor` times the channels, 3×3 within each, 1×1 down; added to what came in where the shape stays."""

    def __init__(self, channels: int, width: int, stride: int, factor: int):
        super().__init__()
        wide = channels * factor
        layers = [_conv_bn(channels, wide, 1)] if factor > 1 else []
        layers += [_conv_bn(wide, wide, stride=stride, groups=wide), nn.Conv2d(wide, width, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(width))
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al., CVPR 2018: `features`, 19 layers to stride 32, and ImageNet's classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [_conv_bn(3, FIRST, stride=2)], FIRST
        for factor, width, count, stride in BLOCKS:
            for k in range(count):
                layers.append(InvertedResidual(channels, width, 1 if k else stride, factor))
                channels = width
        self.features = nn.Sequential(*layers, _conv_bn(channels, LAST, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST, CLASSES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(-2, -1)))


class BasicBlock(nn.Module):
    """He et al., CVPR 2016: two 3×3 convolutions beside a shortcut. `downsample`: the shortcut's, to another shape."""

    def __init__(self, channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))
