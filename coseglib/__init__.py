"""coseglib: object co-segmentation, five papers behind one interface."""

__version__ = "0.1.0"
