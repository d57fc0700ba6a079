"""Folders of photographs -> masks, overlays and a table on disk; the job behind `coseg segment`.

finding     which photographs are meant, what their masks are called    job    read, answer, write; resumable
groups      folders in a folder as groups, the job over all of them     apart  one group that seems to be two
overlays    a mask over its photograph                                  check  what is wrong with a folder
labels      label maps: colours, names, shares                         naming  names for classes, afterwards
exemplars   the crops that show a class best
exports     what others can use: cutouts;  coco  annotations, by polygons;  page  to look through (page.html.j2)
look_first  which masks a person should check
"""
