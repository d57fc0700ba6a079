"""Reports: the notebooks run and shown as pages, and the pages about them that are made, not written.

run           `coseg report`: notebooks run by papermill      site     its pages and summary.md; templates/
reproduction  verdicts, tables of REPRODUCTION.md              buttons  the README's to Binder and Colab
notebooks     what a committed notebook looks like           findings the head of these pages
"""
