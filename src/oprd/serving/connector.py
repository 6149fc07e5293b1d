"""What writes a server's hidden states: a KV connector that vLLM loads by name.

    vllm serve MODEL
        --speculative-config '{"method": "extract_hidden_states", "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [1, 2]}}}'
        --kv-transfer-config '{"kv_connector": "StatesConnector", "kv_role": "kv_producer",
            "kv_connector_module_path": "oprd.serving.connector",
            "kv_connector_extra_config": {"folder": "/dev/shm/states"}}'

vLLM's method of that name keeps the states of the layers that are listed beside its keys and
values, and its own example of a connector copies them on CUDA streams. This one copies them on any
device, writes what a request asks for and nothing for others, and lets a manifest say when it is
there; see `oprd.serving.delivery`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata  # pyright: ignore[reportMissingImports]
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (  # pyright: ignore[reportMissingImports]
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)
from vllm.logger import init_logger  # pyright: ignore[reportMissingImports]

from oprd.serving.delivery import ASKED, FOLDER, LAYERS, NAME, asked_of, deliver, refuse

logger = init_logger(__name__)


@dataclass
class Wanted:
    """States that a request which has ended asked for.

    Attributes:
        request: its id in the engine.
        name: see `oprd.serving.delivery`.
        layers: likewise.
        token_ids: of the prompt.
        blocks: of the cache, that hold its states.
        problem: why they cannot be had, None where they can.
    """

    request: str
    name: str
    layers: list[int]
    token_ids: list[int]
    blocks: list[int]
    problem: str | None = None


@dataclass
class WantedStates(KVConnectorMetadata):
    """What the scheduler tells the worker."""

    wanted: list[Wanted] = field(default_factory=list)


class StatesConnector(ExampleHiddenStatesConnector):
    """Writes the states of the requests that ask for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        extra = self._kv_transfer_config.get_from_extra_config(FOLDER, None)
        if extra is None:
            raise ValueError(f"kv_connector_extra_config must have a {FOLDER!r}, to write into.")
        self._folder = Path(extra)
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._vllm_config.speculative_config.draft_model_config.hf_config
        # In the order in which the model keeps them.
        self._layers = sorted(set(draft.eagle_aux_hidden_state_layer_ids))
        self._wanted: list[Wanted] = []

    # --- in the scheduler -----------------------------------------------------------------------

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """Hand on what ended since the last step."""
        wanted, self._wanted = self._wanted, []
        return WantedStates(wanted)

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Keep a request's blocks until its states are copied, where it asks for them."""
        try:
            asked = asked_of(request.kv_transfer_params)
        except ValueError as error:
            logger.error("Request %s asks for states: %s.", request.request_id, error)
            return False, None
        prompt = request.prompt_token_ids
        # One that was given up before its prompt was read has none.
        if asked is None or prompt is None or request.num_computed_tokens < len(prompt):
            return False, None
        name, layers = asked
        missing = sorted(set(layers) - set(self._layers))
        problem = f"it keeps the states of layers {self._layers}, not {missing}"
        self._wanted.append(
            Wanted(
                request.request_id,
                name,
                layers,
                list(prompt),
                list(block_ids),
                problem if missing else None,
            )
        )
        return True, {ASKED: {NAME: name, LAYERS: layers}}

    # --- in the worker --------------------------------------------------------------------------

    def wait_for_save(self) -> None:
        """Nothing is written before a request has ended."""

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Copy what is wanted; its blocks are free then, and the disk may take its time."""
        done = set()
        metadata = self._get_connector_metadata() if self.has_connector_metadata() else None
        for wanted in metadata.wanted if isinstance(metadata, WantedStates) else ():
            # Of several workers that split a model by its width, each has all of a state.
            if self._is_tp_rank_zero:
                self._executor.submit(self._write, wanted, self._copied(wanted))
                done.add(wanted.request)
        return done or None, None

    def _copied(self, wanted: Wanted) -> torch.Tensor | None:
        """[T, L, D] on the CPU."""
        if wanted.problem is not None:
            return None
        assert self._kv_cache is not None
        device, size = self._kv_cache.device, self._block_size
        blocks = torch.tensor(wanted.blocks, device=device)
        slots = (blocks[:, None] * size + torch.arange(size, device=device)).flatten()
        states = extract_from_kv_cache(self._kv_cache, slots, len(wanted.token_ids))
        chosen = torch.tensor([self._layers.index(n) for n in wanted.layers], device=device)
        return states.index_select(1, chosen).cpu()

    def _write(self, wanted: Wanted, states: torch.Tensor | None) -> None:
        folder = self._folder / wanted.name
        try:
            if states is None:
                refuse(folder, str(wanted.problem))
            else:
                model = self._vllm_config.model_config.model
                ids = torch.tensor(wanted.token_ids)
                deliver(folder, states, ids, wanted.layers, model)
        except FileExistsError:
            logger.warning("Request %s was asked for twice.", wanted.request)
        except Exception:
            logger.exception("The states of request %s were not written.", wanted.request)
