"""Install every package in this folder beside the core, each from a wheel of its own, and run its tests.

    python plugins/run_tests.py [pytest arguments]

All are installed before any is tested: plugins have to get along with each other. The tests of what
they do together are in the folder ``tests``.
"""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    here = Path(__file__).parent
    packages = sorted(path.parent for path in here.glob("*/pyproject.toml"))
    if not packages:
        sys.exit("no package in plugins/")
    # --no-deps: their dependencies are lmtasks, which is installed, and what lmtasks brings.
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", *map(str, packages)],
        check=True,
    )
    for folder in (*packages, here):
        tests = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *sys.argv[1:], "tests"]
        subprocess.run(tests, check=True, cwd=folder)


if __name__ == "__main__":
    main()
