"""Procedural scenes: the data set that needs no download.

A scene shows one to three named shapes (`CATEGORIES`) with textures and shading, before a textured background with
clutter, sometimes partly hidden. It is a pure function of the split, the seed, its categories and its number; the label
map holds every category's *visible* pixels, so a scene of two categories asks what its partners want.

Every draw comes from one stream of uniform numbers (PCG64), every colour from elementwise float64 arithmetic: the same
bytes on any machine. A category leans towards a hue of its own, as kinds of real things do, but only its shape is sure.

    shapes  signed distances of what is named and of clutter
    scenes  what stands where, and its pixels and label map       groups  photographs and groups of them

Layout     unit square, x to the right, y down; a shape fits the disc of radius 1 around its own origin
Drawing    signed distances d(x, y), negative inside; a pixel belongs to a shape where d < 0 at its centre
"""

from coseglib.data.synthetic.groups import load_synthetic, synthetic_photos
from coseglib.data.synthetic.shapes import CATEGORIES

__all__ = ["CATEGORIES", "load_synthetic", "synthetic_photos"]
