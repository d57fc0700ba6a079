#!/usr/bin/env bash
# joblib 1.6.0: a process of `multiprocessing` that has used Parallel ends minutes after its last line.
#
# Expected   the process ends when its function returns, as the main process of a script does, whose idle workers are
#            sent away at its end.
# Seen       it stays for as long as joblib keeps idle workers for a next call, 300 seconds: `join()` of such a child takes
#            five minutes with nothing to do (here 15 seconds of them are waited for).
# What to do joblib.externals.loky.get_reusable_executor().shutdown() as the function's last line.
# Versions   joblib 1.6.0, CPython 3.11, Linux
# Run by hand, about half a minute; ends with 1 where the behaviour has changed. Needs python3 >= 3.10 and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check joblib==1.6.0 2>/dev/null
cd "$work"
cat > child.py <<'PY'
import multiprocessing, sys, time
import joblib
from joblib.externals.loky import get_reusable_executor

def work(done, shut_down):
    assert joblib.Parallel(2)(joblib.delayed(abs)(i) for i in range(4)) == [0, 1, 2, 3]
    if shut_down:
        get_reusable_executor().shutdown()
    done.set()

def seconds_after_its_work(context, shut_down, patience=15):
    """inf: still there when patience was over"""
    done = context.Event()
    child = context.Process(target=work, args=(done, shut_down))
    child.start()
    assert done.wait(60)
    returned = time.perf_counter()
    child.join(patience)
    took = float("inf") if child.is_alive() else time.perf_counter() - returned
    child.terminate()
    child.join()
    return took

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    as_it_is, shut_down = (seconds_after_its_work(context, value) for value in (False, True))
    print(f"joblib {joblib.__version__}: the child ends {as_it_is:.1f} s after its work, with shutdown() {shut_down:.1f} s")
    sys.exit(not (as_it_is == float("inf") and shut_down < 10))
PY
"$work/venv/bin/python" child.py
