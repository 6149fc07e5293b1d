import json
import warnings

import pytest
import torch

from oprd.calibration.similarity import measure_similarity
from oprd.core.bridge import Bridge
from tests.calibration import fit_share
from tests.calibration.pairs import rollouts, student, teacher


def fitted(folder, processes):
    names = [f"{process}-of-{processes}" for process in range(processes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these bridges have no models in their provenance
        bridges = [Bridge.load(folder / f"{name}.safetensors") for name in names]
    return bridges, [json.loads((folder / f"{name}.json").read_text()) for name in names]


def test_two_processes_write_and_read_their_shares_and_fit_the_bridge_of_one(
    tmp_path, two_processes
):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    fit_share.main(str(tmp_path / "one"))
    errors = two_processes("calibration.fit_share", tmp_path / "two")
    assert not any(errors), errors
    (one,), (report,) = fitted(tmp_path / "one", 1)
    two, reports = fitted(tmp_path / "two", 2)
    written = [(tmp_path / name / "rollouts.jsonl").read_bytes() for name in ("one", "two")]
    assert written[0] == written[1]
    left = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert left == ["0-of-2.json", "0-of-2.safetensors", "1-of-2.json", "1-of-2.safetensors",
                    "rollouts.jsonl"]  # fmt: skip
    assert {bridge.rows for bridge in two} == {one.rows}
    for bridge in two:
        for name, buffer in bridge.named_buffers():
            torch.testing.assert_close(
                buffer, dict(one.named_buffers())[name], atol=1e-4, rtol=1e-4
            )
    assert reports[0] == reports[1]
    assert reports[0]["rows"] == report["rows"]
    for ours, theirs in zip(reports[0]["layers"], report["layers"], strict=True):
        assert ours["cosine"]["after"] == pytest.approx(theirs["cosine"]["after"], abs=1e-4)
        assert ours["r_squared"]["after"] == pytest.approx(theirs["r_squared"]["after"], abs=1e-3)


def test_two_processes_go_by_the_similarity_and_by_the_error_of_the_first(tmp_path, two_processes):
    errors = two_processes("calibration.similarity_share", tmp_path)
    assert not any(errors), errors
    first, second = (
        json.loads((tmp_path / f"similarity-{rank}.json").read_text()) for rank in range(2)
    )
    assert first == second
    expected = measure_similarity(student(), teacher(), rollouts(), "all", 1, progress=False)
    assert torch.tensor(first["similarity"]).allclose(expected.float(), atol=2e-4)
    assert first["error"].startswith("teacher layer 4 is not finite where it predicts")
