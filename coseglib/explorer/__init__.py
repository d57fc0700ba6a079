"""Looking at photographs by hand: what changes in the answers when one thing is changed.

`session.Session`  what is asked and kept, and uploads, without widgets     `page.Explorer`  the page for JupyterLab
`controls`, `pictures`  the page's widgets, and its pictures as bytes
"""
