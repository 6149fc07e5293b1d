"""Responses of a sharded model against those of a whole one; run by test_task_evaluation.

Accelerate sets up FSDP on accelerators alone, so that torch's own sharding stands in for it here.
"""

import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from oprd.models.generate import Request, TransformersEngine
from oprd.models.sampling import Sampling
from oprd.training.task_evaluation import SharedEngine
from tests import tiny


def main() -> None:
    accelerator = Accelerator(cpu=True)
    model, sharded = tiny.model(seed=1).double(), tiny.model(seed=1).double()
    mesh = init_device_mesh("cpu", (accelerator.num_processes,))
    for block in sharded.base_model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    # Nine in rounds of four: the second process has nothing to draw in the last one.
    requests = [Request(str(n), 0, tuple(range(1, n + 2)), n) for n in range(9)]
    sampling = Sampling(samples=1, temperature=1.0, max_new_tokens=200)

    def drawn(engine) -> dict[str, list[int]]:
        responses = [r for batch in engine.generate(requests, sampling) for r in batch]
        assert len(responses) == len(requests)
        return {response.request.problem: response.ids for response in responses}

    whole = drawn(TransformersEngine(model, tiny.tokenizer(), 2))
    assert len(set(map(len, whole.values()))) > 1, "the responses must end at different tokens"
    shared = drawn(SharedEngine(TransformersEngine(sharded, tiny.tokenizer(), 2), accelerator))
    assert shared == whole
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
