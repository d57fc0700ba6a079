"""Layers that several papers share, or that have to be fast."""
