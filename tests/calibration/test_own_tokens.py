"""A bridge is fitted on the same view that a run trains in: the teacher reads its own tokens."""

import copy

import pytest
import torch

from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.heads import Carried, both_heads
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.models import FitModels
from oprd.calibration.reading import RowReader
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import draw_rows, select_rows
from oprd.calibration.similarity import measure_similarity
from oprd.core.bridge.heads import HeadStatistics, solve_heads
from oprd.core.layers import LayerPair
from oprd.core.spans import NONE
from oprd.models.own_tokens import OwnTokens
from oprd.models.token_bytes import TokenBytes
from tests import tiny
from tests.models.built_tokenizers import sentencepiece

PAIRS = [LayerPair(2, 2)]
TEXTS = ["the cat sat", "42 🙂 and é", " leading\r\n", "日本語", "a", "the other cat sat there too"]


def teacher(**overrides):
    shape = {"num_hidden_layers": 4, "hidden_size": 48}
    return tiny.reading(sentencepiece(), seed=2, **{**shape, **overrides})


def models(**overrides) -> FitModels:
    names = copy.deepcopy(tiny.tokenizer()), copy.deepcopy(sentencepiece())
    both = (tiny.model(seed=1), teacher(**overrides)), names
    return FitModels(*both[0], *both[1], OwnTokens.of(*both))


def rollouts(count: int = 24) -> list[Rollout]:
    found = []
    for number in range(count):
        prompt, text = f"prompt {number}", TEXTS[number % len(TEXTS)] * (1 + number % 2)
        ids = [tiny.tokenizer()(of)["input_ids"] for of in (prompt, text)]
        ends = [tiny.EOS] if number % 3 else []
        found.append(Rollout(number, prompt, ids[0], ids[1] + ends, "stop" if ends else "length"))
    return found


def by_hand(made: FitModels, selection, layer: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The states of a rollout that meet, of a layer of both models."""
    rollout = selection.rollout
    asked = sentencepiece()(rollout.text)["input_ids"]
    read = made.own.read(rollout.completion_ids)
    with torch.no_grad():
        ours, theirs = (
            model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
            for model, ids in (
                (made.student, rollout.prompt_ids + rollout.completion_ids),
                (made.teacher, asked + read.ids),
            )
        )
    return [
        (ours[len(rollout.prompt_ids) - 1 + t], theirs[len(asked) - 1 + u])
        for t, u in enumerate(read.partners)
        if u != NONE and selection.positions[t]
    ]


def fit(made: FitModels, settings: FitSettings):
    both, view = (made.student, made.teacher), {"teach": made.teach, "common": made.common}
    return fit_bridge(*both, rollouts(), settings, progress=False, **view)


@pytest.mark.parametrize("positions", [("all", 1), ("last_k", 3), ("first_k", 4)])
def test_the_rows_are_states_that_have_read_the_same(positions):
    made = models()
    selections = select_rows(rollouts(), *positions, teach=made.teach)
    rows = RowReader(made.student, made.teacher, PAIRS)(selections)
    expected = [pair for selection in selections for pair in by_hand(made, selection)]
    for found, side in ((rows.student[2], 0), (rows.teacher[2], 1)):
        torch.testing.assert_close(found, torch.stack([pair[side] for pair in expected]))


def test_rows_that_are_drawn_meet_as_all_of_them_do():
    made = models()
    drawn = draw_rows(select_rows(rollouts(), "all", 1, teach=made.teach), 40, seed=0)
    rows = RowReader(made.student, made.teacher, PAIRS)(drawn)
    expected = [pair for selection in drawn for pair in by_hand(made, selection)]
    torch.testing.assert_close(rows.teacher[2], torch.stack([pair[1] for pair in expected]))


def test_a_bridge_says_that_the_teacher_read_its_own_tokens():
    made = models()
    settings = FitSettings(rank=3, positions="all", batch_size=4)
    fitted = fit(made, settings)
    assert fitted.bridge.provenance["teacher_tokenizer"] == "own"
    met = sum(s.rows for s in select_rows(rollouts(), "all", 1, teach=made.teach))
    assert fitted.report["rows"]["fit"] + fitted.report["rows"]["held_out"] == met
    pull = fitted.report["pull"]
    assert pull["rows"] == fitted.report["rows"]["held_out"]
    # Losses on probabilities are no way out.
    assert pull["problem"].endswith("Take another rank or basis.")


def test_what_is_read_and_what_is_common_go_together():
    made = models()
    settings = FitSettings(rank=3, positions="all")
    with pytest.raises(ValueError, match="give both"):
        fit_bridge(made.student, made.teacher, rollouts(), settings, teach=made.teach)


def test_the_basis_of_a_teachers_gradients_goes_with_it():
    made = models()
    settings = FitSettings(rank=3, positions="all", batch_size=4, basis="fisher")
    fitted = fit(made, settings)
    assert fitted.bridge.basis == "fisher"


def test_both_heads_are_read_over_the_tokens_that_both_spell_alike():
    made = models()
    ours, theirs = made.common
    names = tiny.tokenizer(), sentencepiece()
    bytes_of = [TokenBytes(name) for name in names]
    special = made.own.special.partners
    for token, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        assert special.get(token) == other or bytes_of[0][token] == bytes_of[1][other] != b""
    # Every byte, as both vocabularies have them all, and the end and the padding.
    assert len(ours) == len(set(ours.tolist())) == 256 + 2
    settings = FitSettings(positions="all", batch_size=4, basis="heads", layers="last")
    fitted = fit(made, settings)
    pair = both_heads(made.student, made.teacher, made.common)
    expected = solve_heads(HeadStatistics(pair, "centered").moments())
    found, wanted = fitted.bridge.student_projection, expected.student_projection
    torch.testing.assert_close((found.T @ found).float(), (wanted.T @ wanted).float())
    # By hand, on one rollout of those that were held out.
    assert 0 < fitted.report["carried"] < 1
    (selection,) = select_rows(rollouts(1), "all", 1, teach=made.teach)
    last = torch.stack([theirs for _, theirs in by_hand(made, selection, layer=-1)])
    with torch.no_grad():
        q = made.teacher.lm_head(last).softmax(dim=1)[:, made.common[1]].sum()
    assert Carried(made.teacher, made.common[1])(last) == pytest.approx(float(q), rel=1e-5)


def test_layers_are_compared_where_both_have_read_the_same():
    made = models()
    own = measure_similarity(
        made.student, made.teacher, rollouts(), "all", 1, progress=False, teach=made.teach
    )
    assert own.shape == (3, 4) and bool(own.isfinite().all())


def test_a_response_without_room_in_the_teachers_context_is_named_with_both_lengths():
    made = models(max_position_embeddings=16)
    with pytest.raises(ValueError, match=r"prompt 1 .* \(for the student \d+\).*reads 16 at most"):
        select_rows(rollouts(), "all", 1, teach=made.teach)


def test_prompts_that_were_kept_as_one_template_renders_them_are_refused():
    made = models()
    old = Rollout(0, "<user>ask<system>", [1, 2], [3], "length")
    assert made.own.tokenizer.decode(made.teach(old).prompt_ids).strip() == old.text
    made.tokenizer.chat_template = "<user>{{ messages[0].content }}<system>"
    with pytest.raises(ValueError, match="is kept as the student's chat template renders it"):
        made.teach(old)
    made.own.tokenizer.chat_template = None
    said = [{"role": "user", "content": "hi"}]
    taught = made.teach(Rollout(0, old.text, [1], [70], "length", said))
    assert made.own.tokenizer.decode(taught.prompt_ids).strip() == "hi"


def test_models_with_the_students_tokens_have_nothing_to_teach():
    same = FitModels(tiny.model(), tiny.model(), tiny.tokenizer(), copy.deepcopy(tiny.tokenizer()))
    assert same.teach is None
