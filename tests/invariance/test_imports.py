import subprocess
import sys

import pytest

HEAVY = ("transformers", "trl", "accelerate", "datasets", "peft", "scipy", "matplotlib", "pandas")


def imported(statement: str) -> set[str]:
    """Top-level packages in a fresh interpreter after a statement."""
    code = (
        f"{statement}\nimport sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "capture",
        "divergence",
        "layers",
        "objective",
        "positions",
        "reduction",
        "representation",
    ],
)
def test_the_core_imports_torch_alone(module):
    packages = imported(f"import oprd.core.{module}")
    assert "torch" in packages or module == "layers"
    assert not packages & {*HEAVY, "safetensors"}


def test_importing_the_package_is_light():
    packages = imported("import oprd; assert oprd.__version__")
    assert not packages & {*HEAVY, "torch"}


def test_the_names_of_the_package_are_loaded_at_first_use():
    assert "trl" in imported("from oprd import OPRDConfig, OPRDTrainer")
