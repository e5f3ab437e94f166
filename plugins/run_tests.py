"""Install every package in this folder beside the core, each from a wheel of its own, and run its tests.

    python plugins/run_tests.py [pytest arguments]
    python plugins/run_tests.py --install-only

All are installed before any is tested: plugins have to get along with each other. The tests of what
they do together are in the folder ``tests``.
"""

import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> None:
    here = Path(__file__).parent
    packages = sorted(path.parent for path in here.glob("*/pyproject.toml"))
    if not packages:
        sys.exit("no package in plugins/")
    needed = sorted({requirement for package in packages for requirement in needs(package)})
    if needed:
        install("--constraint", str(CONSTRAINTS), *needed)
    # --no-deps: what is left is lmtasks, which is installed, from a wheel of this checkout.
    install("--no-deps", "--force-reinstall", *map(str, packages))
    if sys.argv[1:] == ["--install-only"]:
        return
    # Two packages at once: a test of a tiny model keeps one core busy.
    with ThreadPoolExecutor(2) as pool:
        failed = [folder.name for folder, code in zip(packages, pool.map(tested, packages), strict=True) if code]
    # Those of all packages together are many, and each trains.
    if tested(here, "-n", "2"):
        failed.append("all together")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def tested(folder: Path, *processes: str) -> int:
    """The exit code of the tests in a folder, whose output comes when they are done."""
    words = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *processes, *sys.argv[1:], "tests"]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f"{folder.name}\n{done.stdout}", flush=True)
    return done.returncode


def needs(package: Path) -> list[str]:
    """What a package, or its tests, depend on beside lmtasks."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project.get("optional-dependencies", {}).get("test", ())]
    return [one for one in asked if re.split(r"[^\w-]", one)[0] != "lmtasks"]


def install(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main()
