"""Looking at photographs by hand: what changes in the answers when one thing is changed.

`session.Session`  what is asked and kept, without widgets     `page.Explorer`  the page for JupyterLab on top of it
`controls`, `pictures`, `uploads`  the page's widgets, its pictures as bytes, and photographs from the browser
"""
