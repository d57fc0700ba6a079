"""A loader a data set: files in the published layout -> groups, or photographs with label maps of all their classes.

binary  iCoseg, PASCAL, Internet, the user's own folders     voc, msrc, coco_seg  label maps of many classes
multiclass  groups of two and of three classes          made  such groups pasted of photographs by drawn blobs

All raise CosegError where the set, a list or a mask of it is missing or cannot be read.
"""
