"""Which Transformers this package is tested with. Imports nothing heavy: it is asked first."""

from importlib.metadata import version

from packaging.specifiers import SpecifierSet

# As in pyproject.toml. What lies outside can be worse than an error: the trainer reads states in
# the middle of models, and a checkpoint or a cache that works otherwise gives other gradients.
TRANSFORMERS = ">=5.17,<5.25"


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
