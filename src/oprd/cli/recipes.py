"""`oprd recipes`: the runs to begin from, listed, or copied to be changed."""

import difflib
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="The recipe to copy; without, all.")] = None,
    to: Annotated[
        Path | None, typer.Option(help="The file to write, NAME.yaml in this folder by default.")
    ] = None,
) -> None:
    """List the recipes, or copy one to begin a run from."""
    texts = all_recipes()
    if name is None:
        width = max(map(len, texts))
        for recipe, text in texts.items():
            typer.echo(f"{recipe:{width}}  {first_sentence(text)}")
        typer.echo("\nCopy one with `oprd recipes NAME`, change it, and run it as its head says.")
        return
    name = name.removesuffix(".yaml")
    if name not in texts:
        close = difflib.get_close_matches(name, texts, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(texts)}."
        raise ValueError(f"there is no recipe {name!r}: {hint}")
    file = to or Path(f"{name}.yaml")
    try:
        with file.open("x", encoding="utf-8") as copy:
            copy.write(texts[name])
    except FileExistsError as error:
        raise FileExistsError(f"{str(file)!r} is there already: name another with --to.") from error
    typer.echo(f"Wrote {file}. Set its models and prompts, then run it as its head says:")
    typer.echo(f"    {command(texts[name]).replace(f'{name}.yaml', shlex.quote(str(file)))}")


def all_recipes() -> dict[str, str]:
    """The text of every recipe by its name."""
    found = (file for file in files("oprd.recipes").iterdir() if file.name.endswith(".yaml"))
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(found, key=lambda file: file.name)
    }


def command(recipe: str) -> str:
    """The command that runs a recipe, which stands by itself in its head."""
    return next(line[6:] for line in recipe.splitlines() if line.startswith("#     "))


def first_sentence(recipe: str) -> str:
    """What the head of a recipe says of it, in one line."""
    head: list[str] = []
    for line in recipe.splitlines():
        if not line.startswith("# "):
            break
        head.append(line.removeprefix("# "))
    return " ".join(head).partition(":")[0].partition(". ")[0].rstrip(".")
