import json
import warnings

import pytest
import torch

from oprd.core.bridge import Bridge
from tests.calibration import fit_share


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
    rollouts = [(tmp_path / name / "rollouts.jsonl").read_bytes() for name in ("one", "two")]
    assert rollouts[0] == rollouts[1]
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
