"""Folders of photographs -> masks, overlays and a table on disk; the job behind `coseg segment`.

finding   which photographs are meant, what their masks are called      job  read, answer, write; resumable
groups    folders in a folder as groups, the job over all of them        overlays  a mask over its photograph
check     what is wrong with a folder                        apart  one group that seems to be two
"""
