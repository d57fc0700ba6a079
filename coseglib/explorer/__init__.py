"""Looking at photographs by hand: what changes in the answers when one thing is changed, and saying what is meant.

`session.Session`  what is asked and kept, without widgets     `page.Explorer`  the page for JupyterLab
`said`             clicks, boxes, strokes: what is meant       `saved`          a session on disk
`controls`         the page's widgets                          `stage`          a picture that takes clicks, and draws
`hand`             what a hand does on the page                `pictures`       what the page shows, as pixels
`uploads`          photographs that a browser hands over
"""
