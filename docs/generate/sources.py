"""What the pages of the site link to outside `docs`: taken into it, so that it stands by itself.

The readme is the first page. Other files of Markdown become pages, pictures are copied, and
whatever else is linked (a test that holds a promise, a recipe) becomes a page that shows the file.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = "README.md"
# Pages of the project beside `docs`, by their place in the site.
PROJECT = {
    README: "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
PICTURES = {".png", ".svg"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml"}
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Markdown with all that is no fenced code changed."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def links(text: str) -> list[str]:
    """The targets of Markdown's links outside fenced code, but for those to the network."""
    found: list[str] = []

    def collect(part: str) -> str:
        found.extend(target for target in LINK.findall(part) if "://" not in target)
        return part

    outside_code(text, collect)
    return found


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, by GitHub and by the site."""
    found: list[str] = []

    def collect(part: str) -> str:
        for title in re.findall(r"^#+ (.+?) *#*$", part, flags=re.MULTILINE):
            plain = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower())
            found.append(plain.strip().replace(" ", "-"))
        return part

    outside_code(text, collect)
    return set(found)


def target_of(page: Path, link: str) -> tuple[Path, str]:
    """The file that a link of a page leads to, and its anchor with the sign before it."""
    path, sign, anchor = link.partition("#")
    return ((page.parent / path).resolve() if path else page), sign + anchor


def place(path: Path) -> str:
    """Where the site has a file."""
    if path.is_relative_to(DOCS):
        name = path.relative_to(DOCS).as_posix()
        return name.removesuffix(".py") + ".md" if name.startswith("notebooks/") else name
    name = path.relative_to(ROOT).as_posix()
    if name in PROJECT:
        return PROJECT[name]
    return f"source/{name}" if path.suffix in PICTURES else f"source/{name}.md"


def rewritten(text: str, page: Path) -> str:
    """The text of a page with its links as the site has their targets."""
    here = posixpath.dirname(place(page))

    def replace(match: re.Match[str]) -> str:
        link = match.group()
        if "://" in link or link.startswith("#"):
            return link
        path, anchor = target_of(page, link)
        return posixpath.relpath(place(path), here or ".") + anchor

    return outside_code(text, lambda part: LINK.sub(replace, part))


def shown(path: Path) -> str:
    """A page that shows a file, or lists a folder."""
    name = path.relative_to(ROOT).as_posix()
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{name}`\n\n"
    if path.is_dir():
        files = sorted(each.name for each in path.iterdir() if not each.name.startswith(("_", ".")))
        return head + "\n".join(f"- `{each}`" for each in files) + "\n"
    text = path.read_text(encoding="utf-8")
    # Longer than any fence in the file.
    fence = "`" * (max(map(len, re.findall("`{3,}", text)), default=2) + 1)
    return f"{head}{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}{fence}\n"


def outside(pages: list[Path]) -> list[Path]:
    """Every file and folder that pages link to and that is neither in `docs` nor a page itself."""
    found = [target_of(p, link)[0] for p in pages for link in links(p.read_text(encoding="utf-8"))]
    beside = (path for path in dict.fromkeys(found) if not path.is_relative_to(DOCS))
    return [path for path in beside if path not in pages and path.exists()]
