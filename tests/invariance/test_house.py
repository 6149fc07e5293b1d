"""Which room may import which, read off the imports; without a circle."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import oprd

SOURCE = Path(__file__).parents[2] / "src" / "oprd"
GROUND = {
    "extras", "files", "hub", "log", "names", "secrets", "stopwatch", "supported", "text", "values",
    "version",
}  # fmt: skip
# A room, and the rooms, or modules and folders of them, that it may import besides itself.
ROOMS = {
    "version": set(),
    "extras": set(),
    "supported": set(),
    "values": {"text"},
    "names": set(),
    "hub": {"log"},
    "files": {"text"},
    "text": set(),
    "secrets": set(),
    "log": {"secrets"},
    "stopwatch": set(),
    "recipes": set(),
    "core": set(),
    "runs": GROUND,
    "models": {"core", "runs", *GROUND},
    "evaluation": {"models", "runs", *GROUND},
    "prompts": {
        "models.reading", "models.views", "models.prompt", "evaluation.tasks", *GROUND,
    },
    "calibration": {"core", "models", "runs", "prompts", *GROUND},
    "serving": {"core", "models", "runs", *GROUND},
    "settings": {"core", "models", "runs", *GROUND},
    "guards": {"core", "models", "runs", "calibration", *GROUND},
    "rollouts": {"core", "models", "runs", "evaluation", "prompts", "settings", *GROUND},
    "training": {
        "core", "models", "runs", "evaluation", "prompts", "calibration", "serving",
        "settings", "guards", "rollouts", *GROUND,
    },
    "analysis": {
        "core", "models", "runs", "prompts", "calibration", "settings", "guards", "rollouts",
        "training", *GROUND,
    },
    "reports": {"runs", "evaluation", *GROUND},
    "cli": {
        "core", "models", "runs", "evaluation", "prompts", "calibration", "settings", "guards",
        "training", "analysis", "reports", "recipes", *GROUND,
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
    "secrets": LIGHT,
    "log": LIGHT - {"accelerate"},
    "stopwatch": LIGHT - {"torch"},
    "recipes": LIGHT,
    "models": {"trl", "datasets"},
    "evaluation": {"trl"},
    "prompts": {"trl"},
    "calibration": {"trl"},
    "guards": {"trl"},
    "serving": {"trl", "datasets"},
    "reports": {"trl", "torch", "transformers"},
}
# Where TRL is imported besides; analysis times its loss by one late import.
TRL = {"cli.train", "cli.arguments", "analysis.others"}
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


def imports(path: Path, *, late: bool = True) -> Iterator[str]:
    """Full names that a file imports, at its top or `late`; what only types need is left out."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef) and not late:
                continue
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
    package, _, first = full.partition(".")
    # Some of the package's own names are those of a module that is loaded at their first use.
    full = oprd._LAZY.get(first, full) if package == "oprd" else full
    name = full.removeprefix("oprd.") if full.startswith("oprd.") else None
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def packages(module: str, sources: Mapping[str, Path] = MODULES) -> set[str]:
    """Other packages that come with a module: those that it imports, at its top or late, and those
    that come with our own modules at its top."""
    found = {full.partition(".")[0] for full in imports(sources[module])}
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or name not in sources:
            continue
        seen.add(name)
        todo.append(name.rpartition(".")[0])
        for full in imports(sources[name], late=False):
            found.add(full.partition(".")[0])
            todo.append(own(full) or "")
    return found


def too_heavy(module: str, sources: Mapping[str, Path] = MODULES) -> set[str]:
    """What comes with a module although its room leaves it to others."""
    # A room above may have these through rooms below, but may not ask for them itself.
    own_way = set()
    if room(module) not in ("settings", "training") and module not in TRL:
        own_way.add("trl")
    if room(module) == "core" and module not in SAFETENSORS_IN_CORE:
        own_way.add("safetensors")
    direct = {full.partition(".")[0] for full in imports(sources[module])}
    return (direct & own_way) | (packages(module, sources) & FORBIDDEN.get(room(module), set()))


def circle(sources: Mapping[str, Path] = MODULES) -> list[str]:
    """Modules that reach themselves through their imports, late ones among them."""
    graph = {
        module: {name for full in imports(path) if (name := own(full)) and name != module}
        for module, path in sources.items()
    }
    # A package's own names are those of its modules.
    graph = {
        module: {name for name in found if not module.startswith(f"{name}.")}
        for module, found in graph.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


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
    assert not too_heavy(module)


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        ("runs.record", "import torch", {"torch"}),
        ("runs.record", "def f():\n    import torch", {"torch"}),
        ("runs.record", "from oprd.log import get_logger", {"accelerate"}),
        ("reports.curves", "from oprd.core.layers import LayerPair", {"torch"}),
        ("models.load", "from oprd.settings.run import OPRDConfig", {"trl"}),
        # What another room loads late does not come with it.
        ("reports.curves", "from oprd.evaluation.verify import verify", set()),
        ("analysis.cost", "from oprd.settings.run import OPRDConfig", set()),
        ("analysis.cost", "import trl", {"trl"}),
    ],
)
def test_a_heavy_package_is_seen_through_other_rooms(tmp_path, module, statement, found):
    (tmp_path / "file.py").write_text(statement)
    assert too_heavy(module, {**MODULES, module: tmp_path / "file.py"}) == found


def test_every_room_is_in_the_table():
    assert {room(module) for module in MODULES} == set(ROOMS)


def test_no_module_reaches_itself_through_its_imports():
    assert not circle(), "an import circle: " + " → ".join(circle())


@pytest.mark.parametrize(
    "statement", ["from oprd import OPRDTrainer", "def f():\n    from oprd.training import trainer"]
)
def test_a_circle_is_seen_whatever_its_names_are(tmp_path, statement):
    (tmp_path / "file.py").write_text(statement)
    assert circle({**MODULES, "training.update": tmp_path / "file.py"})


def test_no_module_takes_the_package_as_a_whole():
    """What it uses of it could not be read off the import."""
    assert not [module for module, path in MODULES.items() if "oprd" in imports(path)]


def test_the_table_is_without_a_circle_itself():
    rooms = {name: {room(place) for place in places} for name, places in ROOMS.items()}
    TopologicalSorter(rooms).prepare()


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        ("core.capture", "from oprd.settings.run import OPRDConfig", ["settings.run"]),
        ("runs.record", "def f():\n    import oprd.models.load", ["models.load"]),
        ("core.capture", "from oprd import OPRDTrainer", ["training.trainer"]),
        ("calibration.reading", "from oprd import OPRDConfig", ["settings.run"]),
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
