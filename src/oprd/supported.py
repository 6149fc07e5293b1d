"""Which Transformers and vLLM this package works with. Imports nothing heavy: it is asked first."""

from importlib.metadata import packages_distributions, version

from packaging.specifiers import SpecifierSet
from packaging.version import Version

# As in pyproject.toml. What lies outside can be worse than an error: the trainer reads states in
# the middle of models, and a checkpoint or a cache that works otherwise gives other gradients.
TRANSFORMERS = ">=5.17,<5.25"
# TRL's own, of which it only warns: another may take weights otherwise.
VLLM = ">=0.22,<=0.31"


def check_transformers() -> str:
    """The version of Transformers that is installed.

    Raises:
        ImportError: it is not of the tested range.
    """
    found = version("transformers")
    if not SpecifierSet(TRANSFORMERS).contains(found, prereleases=True):
        raise ImportError(
            f"transformers {found} is installed, and oprd is tested with {TRANSFORMERS}: "
            f"pip install 'transformers{TRANSFORMERS}'."
        )
    return found


def check_vllm() -> str | None:
    """The version of vLLM that is installed, None where there is none.

    Raises:
        ImportError: TRL does not hand weights to it.
    """
    # Builds for other machines than a GPU have other names.
    named = packages_distributions().get("vllm")
    if not named:
        return None
    found = version("vllm" if "vllm" in named else named[0])
    if not SpecifierSet(VLLM).contains(Version(found).base_version, prereleases=True):
        raise ImportError(
            f"vllm {found} is installed, and TRL works with {VLLM}: pip install 'vllm{VLLM}'."
        )
    return found
