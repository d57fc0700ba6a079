"""What `coseg segment` waits for before it begins: torchvision and Fabric take two seconds each."""

import subprocess
import sys

CODE = """
import sys
from coseglib.cli.main import main
code = main(["segment", sys.argv[1], "-o", sys.argv[2]])
slow = [m for m in ("torchvision", "lightning_fabric", "sklearn", "scipy", "pandas", "matplotlib") if m in sys.modules]
print(code, "slow:", *slow)
"""


def test_segmenting_imports_nothing_slow(tmp_path):
    import numpy as np

    from coseglib.data.images import write_png

    for i in range(2):
        write_png(tmp_path / f"{i}.png", np.random.default_rng(i).integers(0, 256, (3, 40, 50), dtype=np.uint8))
    command = [sys.executable, "-c", CODE, str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "0 slow:", done.stdout + done.stderr


def test_the_workers_of_the_dense_crf_import_no_torch():
    code = "import sys, coseglib.answering.densecrf; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
