"""How states travel from a server to a run: a folder for every request, complete with its manifest.

A client names the folder at random, so that nothing which is there already can be taken for its
answer; it deletes the folder once it has read it. The server writes into it

- `states.safetensors`: `hidden_states` [T, L, D] in the server's dtype, and `token_ids` [T];
- `manifest.json`: size and hash of that file, the layers, and what the server calls its model; or,
  where it could not do what it was asked for, why.

That one will be there the answer to the request says: it carries back what was asked for.

Layers have this package's numbers: 0 is the embedding, 1..L the blocks. The last one is before the
final norm.

Letters: T tokens of a sequence, L layers, D width.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from oprd.runs.manifest import write_manifest

# What a request carries in `kv_transfer_params`, and what stands there.
ASKED = "hidden_states"
NAME, LAYERS = "name", "layers"
STATES, TOKENS = "hidden_states", "token_ids"
FILE = "states.safetensors"
MODEL, PROBLEM = "model", "problem"
# In the server's `kv_connector_extra_config`: where it writes.
FOLDER = "folder"
# Of a name: what a client made at random.
_RANDOM = re.compile("[0-9a-f]{32}")


def asked_of(params: Mapping[str, Any] | None) -> tuple[str, list[int]] | None:
    """The name and the layers that a request asks for; None where it asks for none.

    Raises:
        ValueError: it asks for something else.
    """
    asked = (params or {}).get(ASKED)
    if asked is None:
        return None
    name, layers = (asked.get(NAME), asked.get(LAYERS)) if isinstance(asked, dict) else (None, None)
    # A name is a folder's: no other string may lead out of it.
    if not isinstance(name, str) or not _RANDOM.fullmatch(name):
        raise ValueError(f"{NAME} must be 32 hexadecimal digits")
    if not isinstance(layers, list) or not layers or not all(type(n) is int for n in layers):
        raise ValueError(f"{LAYERS} must be a list of numbers")
    return name, layers


def deliver(
    folder: Path, states: Tensor, token_ids: Tensor, layers: Sequence[int], model: str
) -> None:
    """Write an answer.

    Args:
        folder: of the request.
        states: [T, L, D].
        token_ids: [T].
        layers: L of them.
        model: what the server calls it.

    Raises:
        FileExistsError: one is there: a client that got no reply has asked again.
        OSError: it cannot be written, which the answer then says where there is room for that.
        SafetensorError: likewise.
    """
    folder.mkdir()
    try:
        save_file({STATES: states.contiguous(), TOKENS: token_ids}, folder / FILE)
        write_manifest(folder, {LAYERS: list(layers), MODEL: model}, [FILE])
    except (OSError, SafetensorError) as error:
        (folder / FILE).unlink(missing_ok=True)
        write_manifest(folder, {PROBLEM: f"it could not write them ({error})"}, [])
        raise


def refuse(folder: Path, why: str) -> None:
    """Say why there is no answer; the end of a sentence."""
    folder.mkdir()
    write_manifest(folder, {PROBLEM: why}, [])
