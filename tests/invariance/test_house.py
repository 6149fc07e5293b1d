"""Which room may import which, read off the imports; without a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "oprd"
GROUND = {
    "extras", "files", "log", "names", "stopwatch", "supported", "text", "values", "version",
}  # fmt: skip
# A room, and the rooms, or modules and folders of them, that it may import besides itself.
ROOMS = {
    "version": set(),
    "extras": set(),
    "supported": set(),
    "values": set(),
    "names": set(),
    "files": set(),
    "text": set(),
    "log": set(),
    "stopwatch": set(),
    "recipes": set(),
    "core": set(),
    "runs": GROUND,
    "models": {"core", "runs", *GROUND},
    "evaluation": {"models", "runs", *GROUND},
    "prompts": {"models.reading", "models.prompt", "evaluation.tasks", *GROUND},
    "calibration": {"core", "models", "runs", "prompts", *GROUND},
    "settings": {"core", "models", "runs", *GROUND},
    "training": {
        "core", "models", "runs", "evaluation", "prompts", "calibration", "settings", *GROUND,
    },
    "analysis": {
        "core", "models", "runs", "prompts", "calibration", "settings", "training", *GROUND,
    },
    "reports": {"runs", "evaluation", *GROUND},
    "cli": {
        "core", "models", "runs", "evaluation", "prompts", "calibration", "settings", "training",
        "analysis", "reports", "recipes", *GROUND,
    },
}  # fmt: skip
# Other packages that a room leaves to those above it.
LIGHT = {"torch", "transformers", "trl", "accelerate", "datasets", "peft"}
FORBIDDEN = {
    "core": {"transformers", "trl", "accelerate", "datasets", "peft", "huggingface_hub"},
    "runs": LIGHT,
    "version": LIGHT,
    "extras": LIGHT,
    "supported": LIGHT,
    "values": LIGHT,
    "names": LIGHT,
    "files": LIGHT,
    "text": LIGHT,
    "models": {"trl", "datasets"},
    "evaluation": {"trl"},
    "prompts": {"trl"},
    "calibration": {"trl"},
    "reports": {"trl", "torch", "transformers"},
}
# Where TRL is imported besides; analysis times its loss by one late import.
TRL = {"cli.train", "cli.arguments", "analysis.updates"}
SAFETENSORS_IN_CORE = {"core.bridge.file"}


def modules() -> dict[str, Path]:
    """Dotted names below the package, `cli.main` for instance."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and name != "__main__":
            found[name] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Full names that a file imports, at its top or late; what only types need is left out."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module is not None, "imports are absolute"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
                yield from visit(child)

    return visit(ast.parse(path.read_text()))


def own(full: str) -> str | None:
    """The module of this package that an imported name is or stands in."""
    name = full.removeprefix("oprd.") if full.startswith("oprd.") else None
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def room(module: str) -> str:
    return module.partition(".")[0]


def upward(module: str, names: Iterator[str]) -> list[str]:
    """What a module imports from rooms that its own may not import."""
    allowed = tuple(f"{place}." for place in (room(module), *ROOMS[room(module)]))
    found = {name for full in names if (name := own(full)) is not None}
    return sorted(name for name in found if not f"{name}.".startswith(allowed))


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_what_the_table_allows(module):
    assert not upward(module, imports(MODULES[module]))


@pytest.mark.parametrize("module", MODULES)
def test_a_room_leaves_heavy_packages_to_those_above(module):
    packages = {full.partition(".")[0] for full in imports(MODULES[module])}
    forbidden = set(FORBIDDEN.get(room(module), set()))
    if room(module) not in ("settings", "training") and module not in TRL:
        forbidden.add("trl")
    if room(module) == "core" and module not in SAFETENSORS_IN_CORE:
        forbidden.add("safetensors")
    assert not packages & forbidden


def test_every_room_is_in_the_table():
    assert {room(module) for module in MODULES} == set(ROOMS)


def test_no_module_reaches_itself_through_its_imports():
    graph = {
        module: {name for full in imports(path) if (name := own(full)) and name != module}
        for module, path in MODULES.items()
    }
    # A package's own names are those of its modules.
    graph = {
        module: {name for name in found if not module.startswith(f"{name}.")}
        for module, found in graph.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"an import circle: {' → '.join(error.args[1])}")


def test_the_table_is_without_a_circle_itself():
    rooms = {name: {room(place) for place in places} for name, places in ROOMS.items()}
    TopologicalSorter(rooms).prepare()


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        ("core.capture", "from oprd.settings.run import OPRDConfig", ["settings.run"]),
        ("runs.record", "def f():\n    import oprd.models.load", ["models.load"]),
        ("training.update", "from oprd.core.capture import Transform", []),
    ],
)
def test_an_import_upwards_is_seen_wherever_it_stands(tmp_path, module, statement, found):
    (tmp_path / "file.py").write_text(statement)
    assert upward(module, imports(tmp_path / "file.py")) == found


def test_files_stay_short():
    """A reader holds a file in mind; one that must be longer says why at its top."""
    for module, path in MODULES.items():
        lines = path.read_text().splitlines()
        assert len(lines) <= 320 or any("longer than" in line for line in lines[:20]), module


def test_training_is_one_run_and_nothing_else():
    files = list((SOURCE / "training").rglob("*.py"))
    assert len(files) <= 25
    assert sum(len(path.read_text().splitlines()) for path in files) < 3200
