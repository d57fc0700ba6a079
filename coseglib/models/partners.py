"""What partner models share: a group is asked pair by pair, and the foreground's probabilities are averaged.

A partner model offers  encode(images) -> maps of each image, a list
                        heard(maps) -> those of them that are read of an answer image
                        compare(query's maps, answer's maps) -> Output for the query images
"""

import torch
from torch import Tensor

from coseglib.models.output import Output


def others_equally(n: int) -> Tensor:
    """Weights (n, n) whose rows sum to 1: every other image in equal parts; of one image, itself."""
    return torch.ones(1, 1) if n == 1 else (1 - torch.eye(n)) / (n - 1)


def ask(model, images: Tensor, weights: Tensor | None = None) -> Output:
    """(B, N, 3, H, W) in [0, 1] -> logits (B, N, 2, H, W), extras (B, N, …). Features are computed once an image.

    weights  (B, N, N), rows sum to 1: whose answer image i gets; None: all others', in equal parts (N = 1: its own)
    Where every image has one partner the logits are that comparison's; else the logarithm of the weighted mean of the
    probabilities. Extras are weighted means.
    """
    b, n = images.shape[:2]
    if weights is None:
        weights = others_equally(n).to(images.device).expand(b, n, n)
    group, i, j = weights.nonzero(as_tuple=True)  # P pairs, in the query images' order
    query, share = group * n + i, weights[group, i, j].float()
    maps = model.encode(images.flatten(0, 1))
    answer = [m[group * n + j] for m in model.heard(maps)]
    if len(query) == b * n:  # one partner each: no mean
        out = model.compare(maps, answer)
        logits, extras = out.logits, out.extras
    else:
        out = model.compare([m[query] for m in maps], answer)

        def mean(x: Tensor) -> Tensor:
            """Over an image's partners. (P, …) -> (B·N, …)."""
            return x.new_zeros(b * n, *x.shape[1:]).index_add(0, query, share.view(-1, *(1,) * (x.ndim - 1)) * x)

        logits = mean(out.logits.softmax(dim=1)).clamp(min=torch.finfo(torch.float32).tiny).log()
        extras = {name: mean(extra) for name, extra in out.extras.items()}
    return Output(logits.unflatten(0, (b, n)), {name: extra.unflatten(0, (b, n)) for name, extra in extras.items()})
