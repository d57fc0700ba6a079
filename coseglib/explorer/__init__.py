"""Looking at photographs by hand: what changes in the answers when one thing is changed.

`session.Session`  what is asked and kept, and uploads, without widgets     `page.Explorer`  the page for JupyterLab
`controls`         the page's widgets and pictures
"""
