"""What MkDocs asks for while it builds the site: pages that are made, and links out of `docs`."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.generate import errors, notebooks, reference, sources

# A page that is to be seen whole, and so has all of the width.
ONE_SCREEN = "decide.md"
CELL = re.compile(r"<td[ >].*?</td>", flags=re.DOTALL)
MADE = {
    "reference/errors.md": errors.page,
    "reference/all-settings.md": reference.settings,
    "reference/commands.md": reference.commands,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages that are made of the code, of notebooks, and of what others link to."""
    written = sorted(sources.DOCS.rglob("*.md"))
    project = [sources.ROOT / name for name in sources.PROJECT]
    for path in [*project, *sources.outside([*project, *written])]:
        name = sources.place(path)
        if path.suffix in sources.PICTURES:
            files.append(File.generated(config, name, abs_src_path=str(path)))
        elif name in sources.PROJECT.values():
            files.append(_made(config, name, _read(path)))
        else:
            files.append(_made(config, name, sources.shown(path)))
    for path in sorted((sources.DOCS / "notebooks").glob("*.py")):
        files.append(_made(config, sources.place(path), notebooks.page(path)))
    for name, page in MADE.items():
        files.append(_made(config, name, page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the site has their targets."""
    name = page.file.src_uri
    if name == ONE_SCREEN:
        page.meta["hide"] = ["toc"]
    if name.startswith("source/") or name in MADE:
        return markdown
    project = {place: path for path, place in sources.PROJECT.items()}
    origin = sources.ROOT / project[name] if name in project else sources.DOCS / name
    return sources.rewritten(markdown, origin)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the strokes before bars in a table's code away, as GitHub does."""
    return CELL.sub(lambda cell: cell.group().replace("\\|", "|"), html)


def _made(config: MkDocsConfig, name: str, text: str) -> File:
    return File.generated(config, name, content=text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
