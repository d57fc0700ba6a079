"""Models: what an image and its group are made into logits by.

contract     the base of all models, what may be asked of one, `Output`; POSTS, LOOKS, POOLINGS
registry     METHODS: a method's name and its class; `build_model`
checkpoints  models in safetensors with a card: `load_model`, `save_model`, `find`
semantic_attention, spatial_semantic, pyramid_correlation, dual_cross, multiclass   one file a paper
clusters     what the workbook makes of multiclass: frozen features, a start from clusters
backbones, small_nets, losses   what the papers share      folding   batch norms into convolutions, for use
"""

from coseglib.models.checkpoints import load_model
from coseglib.models.registry import METHODS, build_model

__all__ = ["METHODS", "build_model", "load_model"]
