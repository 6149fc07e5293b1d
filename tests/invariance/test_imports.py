import subprocess
import sys
from pathlib import Path

import oprd
from tests.invariance import test_house as house

HEAVY = ("transformers", "trl", "accelerate", "datasets", "peft", "scipy", "matplotlib", "pandas")


def imported(statement: str) -> set[str]:
    """Top-level packages in a fresh interpreter after a statement."""
    code = (
        f"{statement}\nimport sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


CORE = Path(oprd.__file__).parent / "core"
MODULES = sorted(
    ".".join(path.relative_to(CORE).with_suffix("").parts) for path in CORE.rglob("[a-z]*.py")
)


def test_the_core_imports_torch_alone():
    every = ", ".join(f"oprd.core.{module}" for module in MODULES if module != "bridge.file")
    packages = imported(f"import {every}")
    assert "torch" in packages
    # Through `oprd.core.bridge`, whose file format it is.
    assert not packages & set(HEAVY)
    losses = imported("import oprd.core.objective, oprd.core.capture, oprd.core.layers")
    assert not losses & {*HEAVY, "safetensors"}


def test_importing_the_package_is_light():
    packages = imported("import oprd; assert oprd.__version__")
    assert not packages & {*HEAVY, "torch"}


def test_the_names_of_the_package_are_loaded_at_first_use():
    assert "trl" in imported("from oprd import OPRDConfig, OPRDTrainer")


def test_fitting_a_bridge_needs_no_trl():
    command = house.MODULES["cli.bridge"]
    late = sorted({f"oprd.{name}" for full in house.imports(command) if (name := house.own(full))})
    assert "oprd.calibration.bridge.fit" in late
    packages = imported(f"import oprd.cli.bridge, {', '.join(late)}")
    assert "transformers" in packages
    assert "trl" not in packages
