"""Statistics merged over two processes equal those of one that saw all rows."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.heads import HeadPair, HeadStatistics
from oprd.core.output.head import LMHead

PAIRS, S, H = [(1, 1), (2, 1)], 4, 5
SPLITS = {"uneven": [130, 70], "one without rows": [200, 0], "none": [0, 0]}


def rows_of(rank, counts, gradients):
    generator = torch.Generator().manual_seed(rank)

    def rows(width):
        noise = torch.randn(counts[rank], width, generator=generator)
        # Every process has another mean, far from the others'.
        return noise + 1000 * (1 + rank)

    student = {1: rows(S), 2: rows(S)}
    teacher = {1: rows(H)}
    return student, teacher, {1: teacher[1] / 1e6} if gradients else None


def fit(ranks, counts):
    fitter = BridgeFitter(PAIRS, S, H)
    for rank in ranks:
        # Only the first process feeds gradients: the others must still join the collective.
        student, teacher, gradients = rows_of(rank, counts, gradients=rank == 0)
        fitter.update(student, teacher, teacher_gradients=gradients)
    return fitter


def worker(rank, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=240),
    )
    try:
        merge(rank, folder)
    finally:
        dist.destroy_process_group()


def weighed(ranks, counts):
    """Statistics of both LM heads on rows that a process has, or several one after the other."""
    generator = torch.Generator().manual_seed(9)
    heads = [LMHead(torch.randn(7, w, generator=generator, dtype=torch.float64)) for w in (S, H)]
    statistics = HeadStatistics(HeadPair(*heads), "fisher")
    for rank in ranks:
        drawn = torch.Generator().manual_seed(rank)
        rows = torch.randn(counts[rank], H, generator=drawn, dtype=torch.float64)
        statistics.update(rows)
    # Rows that wait are sums only then.
    statistics._read()
    return statistics


def merge(rank, folder):
    for name, counts in SPLITS.items():
        heads = weighed([rank], counts)
        BridgeFitter(PAIRS, S, H, heads=heads).all_reduce()
        save_file(heads.tensors(), f"{folder}/heads {name}-{rank}")
        fitter = fit([rank], counts)
        fitter.all_reduce()
        save_file(fitter.state_dict(), f"{folder}/{name}-{rank}")
    for call in (fitter.all_reduce, lambda: fitter.update(*rows_of(rank, counts, False)[:2])):
        try:
            call()
        except RuntimeError as error:
            assert "all_reduce" in str(error)
        else:
            raise AssertionError("rows would be counted twice")


@pytest.mark.two_processes
def test_two_processes_equal_one(tmp_path):
    # This process is the other one: it has imported torch already.
    other = mp.get_context("spawn").Process(target=worker, args=(0, str(tmp_path)))
    other.start()
    worker(1, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    for name, counts in SPLITS.items():
        heads = weighed([0, 1], counts).tensors()
        for rank in (0, 1):
            found = load_file(tmp_path / f"heads {name}-{rank}")
            assert found["counts"][0] == heads["counts"][0] == sum(counts)
            for key in ("total", "moment"):
                torch.testing.assert_close(found[key], heads[key], rtol=1e-9, atol=0)
        expected = fit([0, 1], counts).state_dict()
        merged = [load_file(tmp_path / f"{name}-{rank}") for rank in (0, 1)]
        assert merged[0].keys() == merged[1].keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(merged[0][key], merged[1][key])
            if key == "counts":
                assert merged[0][key].tolist() == [*value[:2].tolist(), 1]
            else:
                torch.testing.assert_close(merged[0][key], value, rtol=1e-12, atol=1e-9)
        if sum(counts):
            resumed = BridgeFitter(PAIRS, S, H)
            resumed.load_state_dict(merged[0])
            for basis in ("pca", "rrr", "fisher"):
                bridge = resumed.solve(3, basis=basis)
                direct = fit([0, 1], counts).solve(3, basis=basis)
                torch.testing.assert_close(
                    bridge.student_projection, direct.student_projection, rtol=1e-7, atol=1e-9
                )


def test_one_process_needs_no_collective():
    fitter = fit([0], [50, 0])
    before = fitter.state_dict()
    fitter.all_reduce()
    fitter.all_reduce()
    assert all(torch.equal(before[name], value) for name, value in fitter.state_dict().items())
