"""Groups by pairs: each image meets others one at a time, and the foreground's probabilities are averaged."""

from functools import partial

import torch
from torch import Tensor

from coseglib.models.output import Output


def others_equally(n: int) -> Tensor:
    """Weights (n, n) whose rows sum to 1: every other image in equal parts; of one image, itself."""
    return torch.ones(1, 1) if n == 1 else (1 - torch.eye(n)) / (n - 1)


def ask(model, images: Tensor, weights: Tensor | None = None) -> Output:
    """images (B, N, 3, H, W), weights (B, N, N) -> logits (B, N, 2, H, W), extras (B, N, …), of a partner model.

    Maps are computed once an image. See `contract.PartnerModel.forward`.
    """
    b, n = images.shape[:2]
    if weights is None:
        weights = others_equally(n).to(images.device).expand(b, n, n)
    group, i, j = weights.nonzero(as_tuple=True)  # P pairs, in the query images' order
    query, share = group * n + i, weights[group, i, j].float()
    maps = model.encode(images.flatten(0, 1))
    reference = [m[group * n + j] for m in model.reference_maps(maps)]
    if len(query) == b * n:  # one partner each: no mean
        out = model.answer(maps, reference)
        logits, mean = out.logits, None
    else:
        out = model.answer([m[query] for m in maps], reference)

        def mean(x: Tensor) -> Tensor:
            """Over an image's partners. (P, …) -> (B·N, …)."""
            return x.new_zeros(b * n, *x.shape[1:]).index_add(0, query, share.view(-1, *(1,) * (x.ndim - 1)) * x)

        logits = mean(out.logits.softmax(dim=1)).clamp(min=torch.finfo(torch.float32).tiny).log()

    def extra(name: str) -> Tensor:
        """Of the images, (B, N, …)."""
        found = out.extra(name)
        return (mean(found) if mean else found).unflatten(0, (b, n))

    return Output(logits.unflatten(0, (b, n)), {name: partial(extra, name) for name in out.extras})
