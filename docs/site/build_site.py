"""Builds the documentation's site from the Markdown of the repository, into `build/docs/site`.

    python docs/site/build_site.py

It installs Zensical into `build/docs/venv`, and Mermaid, for the diagrams, from npm; both locked.
Nothing on the pages is loaded from another host. A broken link or anchor is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
BUILD: Final = ROOT / "build" / "docs"
ICON: Final = ROOT / "clients" / "web" / "src" / "shared" / "icon.svg"
MERMAID: Final = "mermaid/dist/mermaid.min.js"
_LINK: Final = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)|(?:src|href)=\"([^\":#]+)\"")


def pages() -> list[Path]:
    """The pages, and what they link to, of all that belongs to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    known = {ROOT / name for name in listed.stdout.splitlines()}
    found = {path for path in known if path.suffix == ".md" and path.exists()}
    for page in tuple(found):
        for link in _LINK.finditer(page.read_text(encoding="utf-8")):
            target = (page.parent / (link[1] or link[3])).resolve()
            if target in known:
                found.add(target)
    return sorted(found)


def copy(to: Path) -> None:
    """Copies the pages, in the folders in which they are."""
    shutil.rmtree(to, ignore_errors=True)
    for page in pages():
        target = to / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)


def tools() -> Path:
    """The folder of the commands, installed if the lock has changed."""
    place, lock = BUILD / "venv", HERE / "requirements.lock"
    stamp = place / "requirements.lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        venv.create(place, clear=True, with_pip=True)
        command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        options = ["--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
        subprocess.run([*command, *options], check=True)
        shutil.copyfile(lock, stamp)
    return place / "bin"


def mermaid() -> Path:
    """The script that draws the diagrams. Exits if there is no npm."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("make docs needs npm, for the diagrams (Node 20 or newer)")
    place = BUILD / "node"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / name, place / name)
    script = place / "node_modules" / MERMAID
    if not script.exists():
        subprocess.run([npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True)
    return script


def main() -> None:
    """Builds the site, and says where it is."""
    binaries = tools()
    copy(BUILD / "pages")
    shutil.copyfile(mermaid(), BUILD / "pages" / "mermaid.min.js")
    shutil.copyfile(ICON, BUILD / "pages" / "icon.svg")
    shutil.copyfile(HERE / "site.css", BUILD / "pages" / "site.css")
    shutil.copyfile(HERE / "mkdocs.yml", BUILD / "mkdocs.yml")
    command = [str(binaries / "zensical"), "build", "--clean", "--strict", "-f", "mkdocs.yml"]
    done = subprocess.run(command, cwd=BUILD, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    print(f"the site begins at {BUILD / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
