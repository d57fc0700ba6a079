"""Folders of photographs -> masks, overlays and a table on disk; the job behind `coseg segment`.

finding   which photographs are meant, what their masks are called      job  read, answer, write; resumable
overlays  a mask over its photograph                                   check  what is wrong with a folder
"""
