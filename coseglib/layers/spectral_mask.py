"""The leading eigenvector of G = XᵀX − 11ᵀ, exactly and without G (SSNM: Zhang et al. 2020, eqs. (6) to (10)).

Symbols   X    unit columns, one a position                  (d, M), M = N · P: N images of P = h · w positions
          s    relaxed indicator of two clusters, ‖s‖ = 1    (M)
          G    XᵀX − 11ᵀ; the best s is its eigenvector of the largest eigenvalue λ, eq. (10)
          Y    [X − m; 1ᵀ], m any vector: the columns' mean  (n, M), n = d + 1
          J    [[I, m], [mᵀ, |m|² − 1]], so that G = YᵀJY    (n, n)

G has rank n at most. Its eigenvalues other than 0 are those of J·YYᵀ and, where YYᵀ = AAᵀ, of the symmetric C = AᵀJA:

    C w = λ w,  z = J A w / λ   ⇒   J YYᵀ z = λ z,  s = Yᵀz,  G s = λ s,  ‖s‖ = 1.

A is YYᵀ's Cholesky factor, so C is n × n; where M < n it is Y itself, and C is G. Centring by m keeps the digits of
features that are nearly equal everywhere. All of it in float64; X is read in blocks and never copied as a whole.

Backward. dλ = λ zᵀ dK z and dz = H dK z with K = YYᵀ, t = J A w for the other eigenpairs (θ, w) of C, and

    H = J/λ − (3/2) zzᵀ + Σ t tᵀ / (λ (λ − θ)).

Where λ − θ nearly vanishes s is not determined and its gradient has no limit: 1/gap becomes
gap/(gap² + (damping · λ)²), which is 0 for a repeated λ. Where λ itself vanishes, all columns being equal up to their
rounding, there are no two clusters: s = 0, no gradient. The sign of s is arbitrary; `foreground_positive` fixes it.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**21  # numbers of X that are held in float64 at once: 16 MiB
JITTER = 1e-12  # added to the unit diagonal before Cholesky: above the rounding of the sums, below what can be seen
ROUNDING = 16  # λ ≤ so many epsilons of X's type · M: rounded unit columns alone give as much


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and positions of x (B, N, d, P) in pieces of about BLOCK numbers."""
    b, n, d, p = x.shape
    images, positions = max(1, BLOCK // (b * d * p)), max(1, BLOCK // (b * d))
    for i in range(0, n, images):
        for k in range(0, p, positions):
            yield slice(i, i + images), slice(k, k + positions)


def _lifted(x: Tensor, mean: Tensor, block: tuple[slice, slice]) -> Tensor:
    """A piece of Y, float64 (B, N', d + 1, P')."""
    centred = x[:, block[0], :, block[1]].double() - mean[:, None, :, None]
    return torch.cat([centred, torch.ones_like(centred[:, :, :1])], dim=2)


def _times_j(mean: Tensor, a: Tensor) -> Tensor:
    """J a. mean (B, d), a (B, S, d + 1, k) -> (B, S, d + 1, k)."""
    m, top, last = mean[:, None, :, None], a[:, :, :-1], a[:, :, -1:]
    return torch.cat([top + m * last, m.mT @ top + (m.mT @ m - 1) * last], dim=2)


def _factor(x: Tensor, mean: Tensor, members: Tensor) -> Tensor:
    """A with AAᵀ = Σ y yᵀ over the positions of each set's members, float64 (B, S, d + 1, min(d + 1, M))."""
    b, n, d, p = x.shape
    if n * p <= d:
        y = _lifted(x, mean, (slice(n), slice(p)))[:, None] * members[..., None, None]  # (B, S, N, d + 1, P)
        return y.transpose(2, 3).flatten(3)
    k = x.new_zeros(b, members.shape[1], d + 1, d + 1, dtype=torch.float64)
    for block in _blocks(x):
        y = _lifted(x, mean, block)
        k += torch.einsum("bsn,bnij->bsij", members[:, :, block[0]], y @ y.mT)  # YYᵀ
    scale = k.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(scale > 0, scale, 1).sqrt()[..., None]
    k = k / (scale * scale.mT)
    k.diagonal(dim1=-2, dim2=-1).add_(JITTER)
    root, failed = torch.linalg.cholesky_ex(k)
    if failed.any():  # more rounding than JITTER: the symmetric root does as well
        values, vectors = torch.linalg.eigh(k)
        root = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return scale * root


def _top_pair(c: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue (B, S) and its eigenvector (B, S, n, 1) of symmetric c (B, S, n, n)."""
    if c.device.type != "cpu":  # on CPUs LAPACK computes one pair in a third of the time that all take
        values, vectors = torch.linalg.eigh(c)
        return values[..., -1], vectors[..., -1:]
    from scipy.linalg import eigh

    top = c.shape[-1] - 1
    one_pair = {"subset_by_index": [top, top], "driver": "evr", "check_finite": False, "overwrite_a": True}
    pairs = [eigh(one.T, **one_pair) for one in c.flatten(0, 1).numpy()]  # LAPACK's own layout
    values, vectors = (torch.from_numpy(np.stack(found)) for found in zip(*pairs, strict=True))
    return values.view(c.shape[:2]), vectors.view(*c.shape[:3], 1)


class _Leading(torch.autograd.Function):
    """x (B, N, d, P), members (B, S, N) float64 of 0 and 1 -> λ (B, S), s (B, S, N, P)."""

    @staticmethod
    def forward(ctx, x: Tensor, members: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        b, n, _, p = x.shape
        mean = sum(x[:, i, :, k].double().sum(dim=(1, 3)) for i, k in _blocks(x)) / (n * p)
        finite = mean.isfinite().all(dim=1)  # (B,): a number that is not makes its sum so
        if not finite.all():
            x, mean = x.where(finite[:, None, None, None], 0), mean.where(finite[:, None], 0)
        a = _factor(x, mean, members)
        ja = _times_j(mean, a)
        value, w = _top_pair(a.mT @ ja)  # C = AᵀJA, symmetric
        rounding = ROUNDING * torch.finfo(x.dtype if x.dtype == torch.float64 else torch.float32).eps
        sound = value > rounding * members.sum(dim=2) * p
        inverse = torch.where(sound, 1 / torch.where(sound, value, 1), 0)
        z = (ja @ w)[..., 0] * inverse[..., None]  # (B, S, d + 1)
        s = x.new_empty(b, n, members.shape[1], p, dtype=torch.promote_types(x.dtype, torch.float32))
        for i, k in _blocks(x):
            s[:, i, :, k] = z[:, None] @ _lifted(x, mean, (i, k))  # s = Yᵀz
        s = s.transpose(1, 2) * members[..., None].to(s.dtype)
        ctx.save_for_backward(x, members, mean, a, value, inverse, z)
        ctx.damping = damping
        if not finite.all():
            value, s = value.where(finite[:, None], torch.nan), s.where(finite[:, None, None, None], torch.nan)
        return value.to(s.dtype), s

    @staticmethod
    @once_differentiable
    def backward(ctx, for_value: Tensor, for_s: Tensor) -> tuple[Tensor, None, None]:
        x, members, mean, a, value, inverse, z = ctx.saved_tensors
        for_s = for_s.transpose(1, 2) * members.mT[..., None]  # (B, N, S, P), float64
        pulled = sum((_lifted(x, mean, (i, k)) @ for_s[:, i, :, k].mT).sum(dim=1) for i, k in _blocks(x))
        pulled = pulled.mT[..., None]  # Y · ds  (B, S, d + 1, 1)
        ja = _times_j(mean, a)
        theta, w = torch.linalg.eigh(a.mT @ ja)
        gap = (value[..., None] - theta[..., :-1]).clamp(min=0)
        t = ja @ w[..., :-1]  # (B, S, d + 1, n − 1)
        weight = inverse[..., None] * gap / (gap**2 + (ctx.damping * value[..., None]) ** 2).clamp(min=1e-300)
        h = _times_j(mean, pulled) * inverse[..., None, None] - 1.5 * z[..., None] * (z[..., None, :] @ pulled)
        h = (h + t @ (weight[..., None] * (t.mT @ pulled)))[..., 0]  # H · Y · ds  (B, S, d + 1)
        h = h.where(inverse[..., None] != 0, 0)
        for_x = torch.empty_like(x)
        for i, k in _blocks(x):
            y, own = _lifted(x, mean, (i, k)), members.mT[:, i, :, None]
            s = (z[:, None] @ y) * own  # (B, N', S, P')
            g = for_s[:, i, :, k] + (h[:, None] @ y) * own + 2 * (for_value * value)[:, None, :, None] * s
            # From s = Yᵀz itself and from K = YYᵀ: rank 2 for each set.
            for_x[:, i, :, k] = (z.mT[:, None] @ g + h.mT[:, None] @ s)[:, :, :-1]
        return for_x, None, None


def group_eigenvectors(x: Tensor, members: Tensor | None = None, damping: float = 1e-3) -> tuple[Tensor, Tensor]:
    """The leading eigenvector of G for sets of images: λ (B, S) and s (B, S, N, P), float32 or x's float64.

    x        (B, N, d, P) with unit columns: P positions in each of N images; G is exact for columns of any length
    members  (B, S, N) bool: which images each of S sets holds; s is 0 in the others. None: one set, of all of them
    damping  gaps to the next eigenvalue below this share of λ are damped in the gradient of s, see the file's head
    A batch entry that is not finite gives NaN. Raises ValueError for other shapes.
    """
    if x.ndim != 4 or not x.numel():
        raise ValueError(f"x of {tuple(x.shape)}: must be (B, N, d, P), not empty")
    b, n = x.shape[:2]
    members = x.new_ones(b, 1, n) if members is None else members
    if members.ndim != 3 or members.shape[::2] != (b, n):
        raise ValueError(f"members of {tuple(members.shape)}: must be (B, S, N) with B, N = {b}, {n}")
    return _Leading.apply(x, members.to(x.device, torch.float64), damping)


def leading_eigenvector(x: Tensor, damping: float = 1e-3) -> tuple[Tensor, Tensor]:
    """The same for x (B, d, M) as one set of positions: λ (B,) and s (B, M), eq. (10). Differentiable in both."""
    if x.ndim != 3:
        raise ValueError(f"x of {tuple(x.shape)}: must be (B, d, M)")
    value, s = group_eigenvectors(x[:, None], damping=damping)
    return value[:, 0], s[:, 0, 0]


def foreground_positive(s: Tensor) -> Tensor:
    """s with the sign that makes the foreground positive. (…, N, h, w) -> (…, N, h, w), one sign for the N images.

    The foreground is the side with the smaller share of its |s| on the images' outermost rows and columns. Where the
    shares are equal (maps without an inside) it is the side of fewer positions; where these are equal too, the one with
    the larger values (by the sum of cubes).
    """
    every = (-3, -2, -1)
    with torch.no_grad():
        border = s.new_ones(s.shape[-2:])
        border[1:-1, 1:-1] = 0
        sides = torch.stack([s.clamp(min=0), (-s).clamp(min=0)])  # (2, …, N, h, w)
        share = (sides * border).sum(dim=every) / sides.sum(dim=every).clamp(min=1e-30)
        count = (sides > 0).sum(dim=every)
        tie = (share[0] - share[1]).abs() <= 1e-4
        flip = torch.where(tie, count[0] > count[1], share[0] > share[1])
        flip = torch.where(tie & (count[0] == count[1]), (s**3).sum(dim=every) < 0, flip)
        sign = torch.where(flip, -1.0, 1.0).to(s.dtype)
    return s * sign[..., None, None, None]
