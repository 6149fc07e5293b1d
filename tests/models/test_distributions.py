"""The memory that comparing next-token distributions holds, counted on shapes."""

from oprd.core.output.chunk import held
from oprd.core.output.divergence import JSD, ReverseKL
from oprd.models.distributions import Distributions
from oprd.models.token_classes import KEPT
from tests import tiny

ROWS = 10
STUDENT = tiny.model()
V, D = STUDENT.config.vocab_size, STUDENT.config.hidden_size
# Of both models' last states.
LAST = 2 * ROWS * D * 4


def test_a_loss_holds_logits_and_gradients_of_states_and_head():
    found = Distributions((ReverseKL(),)).held(STUDENT, [STUDENT], ROWS)
    assert found == 4 * (held(ROWS, (V, V)) + ROWS * D + V * D) + LAST


def test_the_loss_that_holds_most_counts():
    less, more = (Distributions(losses) for losses in [(ReverseKL(),), (ReverseKL(), JSD())])
    both = [own.held(STUDENT, [STUDENT], ROWS) for own in (less, more)]
    assert both[1] - both[0] == 4 * (held(ROWS, (V, V), spare=2) - held(ROWS, (V, V)))


def test_diagnostics_alone_have_no_gradient():
    found = Distributions().held(STUDENT, [STUDENT], ROWS, whole=True)
    assert found == 4 * held(ROWS, (V, V)) + LAST


def test_a_larger_vocabulary_of_the_teacher_counts_with_classes_and_the_ways_to_be_ahead():
    teacher, classes = tiny.model(vocab_size=4 * V), V // 2
    found = Distributions((ReverseKL(),), classes).held(STUDENT, [teacher], ROWS)
    logits = held(ROWS, (V, 4 * V), classes)
    assert logits > ROWS * (V + 4 * V)
    tables = KEPT * 8 * (V + 4 * V)
    # The student's states in their places and twice sorted, the teacher's once.
    last = (3 + 2) * ROWS * D * 4
    assert found == 4 * (logits + ROWS * D + V * D) + last + tables


def test_a_head_that_is_fetched_for_a_teacher_elsewhere_counts():
    here, elsewhere = tiny.model(), tiny.model().to("meta")
    both = [Distributions((ReverseKL(),)).held(STUDENT, [m], ROWS) for m in (here, elsewhere)]
    assert both[1] - both[0] == V * D * 4
