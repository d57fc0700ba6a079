"""A loader a data set: files in the published layout -> groups, or photographs with label maps of all their classes.

binary  iCoseg, PASCAL co-segmentation, Internet          voc, msrc, coco_seg  label maps of many classes
folder  the user's own photographs                        multiclass           groups of two and of three classes
"""
