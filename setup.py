"""What pyproject.toml cannot say: a wheel holds what ships of data/, as coseglib/shipped (`coseglib.core.paths`)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("README.md", "reported.csv", "lists/*.csv", "checkpoints/*", "scenes/*.*", "scenes/backbone/*", "measured/*")
SHIPPED += ("anchors.csv", "pictures/README.md", "pictures/*/*/*")


class WithData(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # there the repository's own data/ is used
            return
        for pattern in SHIPPED:
            for file in sorted(Path("data").glob(pattern)):
                copy = Path(self.build_lib, "coseglib", "shipped", file.relative_to("data"))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


setup(cmdclass={"build_py": WithData})
