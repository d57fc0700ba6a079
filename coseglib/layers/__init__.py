"""Layers that several papers share, or that have to be fast.

cross_attention          DCNet: along rows and columns, between channels, over all positions
depthwise_correlation    PFCC: maps with kernels that were made from other maps
spectral_mask            SSNM: the leading eigenvector of G, without G
decoders                 from maps back to logits
"""
