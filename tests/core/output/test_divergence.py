import dataclasses
import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from oprd.core.output import head
from oprd.core.output.chunked import output_loss
from oprd.core.output.divergence import JSD, ForwardKL, ReverseKL, SampledToken, TopK
from oprd.core.output.head import LMHead
from oprd.core.output.skewed import SkewedKL
from tests.reference import divergence as reference

V, D_STUDENT, D_TEACHER = 23, 5, 7
MASK = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]]).bool()
TOKENS = torch.arange(MASK.numel()).view(MASK.shape) * 7 % V
HEADS = {
    "weight": (False, 1.0, None),
    "bias": (True, 1.0, None),
    "scale": (False, 0.3, None),
    "softcap": (False, 1.0, 2.0),
    "all": (True, 0.7, 1.5),
}


sampled_token_loss = functools.partial(output_loss, SampledToken())
full_kl_loss = functools.partial(output_loss, ReverseKL())
forward_kl_loss = functools.partial(output_loss, ForwardKL())


def topk_loss(*arguments, k=16, support="student", renormalize=True, **options):
    return output_loss(TopK(k, support, renormalize), *arguments, **options)


def jsd_loss(*arguments, beta=0.5, **options):
    return output_loss(JSD(beta), *arguments, **options)


def sampled_value(log_p, log_q, b, t):
    return reference.sampled_token(log_p, log_q, int(TOKENS[b, t]))


def topk_case(**options):
    def value(log_p, log_q, b, t):
        return reference.topk(log_p, log_q, **options)

    return functools.partial(topk_loss, **options), value


def jsd_case(beta):
    def value(log_p, log_q, b, t):
        return reference.jsd(log_p, log_q, beta)

    return functools.partial(jsd_loss, beta=beta), value


def skewed_case(alpha, mirror):
    def value(log_p, log_q, b, t):
        return reference.skewed_kl(log_p, log_q, alpha, mirror)

    return functools.partial(output_loss, SkewedKL(alpha, mirror)), value


LOSSES = {
    "sampled": (functools.partial(sampled_token_loss, token_ids=TOKENS), sampled_value),
    "reverse_kl": (full_kl_loss, lambda log_p, log_q, b, t: reference.reverse_kl(log_p, log_q)),
    "forward_kl": (
        forward_kl_loss,
        lambda log_p, log_q, b, t: reference.forward_kl(log_p, log_q),
    ),
    "jsd_0.5": jsd_case(0.5),
    "jsd_0.1": jsd_case(0.1),
    "skewed_0.1": skewed_case(0.1, False),
    "skewed_0.7": skewed_case(0.7, False),
    "skewed_0.1_mirrored": skewed_case(0.1, True),
    "skewed_0.7_mirrored": skewed_case(0.7, True),
    # Truncated, a support that holds too little of p is left instead of matched: not so with 18.
    **{
        f"top{k}_{support}_{'renormalized' if renormalize else 'truncated'}": topk_case(
            k=k, support=support, renormalize=renormalize
        )
        for support in ("student", "teacher", "union")
        for k, renormalize in ((4, True), (18, False))
    },
}
all_losses = pytest.mark.parametrize("loss", LOSSES)


def setting(seed=0, dtype=torch.float64, kind="all", mask=MASK):
    """Hidden states and heads that all require gradients; masked rows are NaN."""
    generator = torch.Generator().manual_seed(seed)
    has_bias, scale, softcap = HEADS[kind]
    hidden, heads = [], []
    for width in (D_STUDENT, D_TEACHER):
        states = torch.randn(*mask.shape, width, generator=generator, dtype=torch.float64)
        states[~mask] = torch.nan
        weight = torch.randn(V, width, generator=generator, dtype=torch.float64)
        bias = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        hidden.append(states.to(dtype).requires_grad_())
        weight = weight.to(dtype).requires_grad_()
        heads.append(LMHead(weight, bias if has_bias else None, scale, softcap))
    return (*hidden, *heads)


def student_variables(student, student_head):
    variables = [student, student_head.weight, student_head.bias]
    return [variable for variable in variables if variable is not None]


def expected(loss, arguments, temperature=1.0, reduction="sequence"):
    student, teacher, *heads = arguments
    heads = [(h.weight, h.bias, h.scale, h.softcap) for h in heads]
    return reference.total(LOSSES[loss][1], student, teacher, *heads, MASK, temperature, reduction)


@all_losses
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize(("temperature", "reduction"), [(1.0, "sequence"), (0.6, "token")])
def test_value_and_gradients_are_those_of_the_definition(loss, kind, temperature, reduction):
    arguments = setting(kind=kind)
    student, _, student_head, _ = arguments
    total, count = LOSSES[loss][0](
        *arguments, mask=MASK, temperature=temperature, reduction=reduction
    )
    by_hand, count_by_hand = expected(loss, arguments, temperature, reduction)
    assert total.dtype == torch.float64
    assert count == count_by_hand
    # Position weights are float32, so a sequence's 1/3 carries 1e-8.
    tolerance = {"rtol": 1e-7, "atol": 1e-7} if reduction == "sequence" else {}
    torch.testing.assert_close(total, by_hand, **tolerance)
    variables = student_variables(student, student_head)
    # The scale of the outer gradient passes through.
    gradients = torch.autograd.grad(3 * total, variables)
    for gradient, truth in zip(gradients, torch.autograd.grad(3 * by_hand, variables), strict=True):
        torch.testing.assert_close(gradient, truth, **tolerance)


@all_losses
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8), (torch.float16, 1e-3)]
)
def test_the_loss_is_float32_and_only_gradients_are_rounded(loss, dtype, tolerance):
    student, teacher, student_head, teacher_head = setting(dtype=dtype)
    total, _ = LOSSES[loss][0](student, teacher, student_head, teacher_head, mask=MASK)
    gradients = torch.autograd.grad(total, student_variables(student, student_head))
    student = student.detach().double().requires_grad_()
    student_head = in_float64(student_head)
    by_hand, _ = expected(loss, (student, teacher, student_head, teacher_head))
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.double(), by_hand, rtol=1e-5, atol=1e-6)
    truths = torch.autograd.grad(by_hand, student_variables(student, student_head))
    for gradient, truth in zip(gradients, truths, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), truth, rtol=tolerance, atol=1e-6)


def in_float64(low):
    weight, bias = (x.detach().double().requires_grad_() for x in (low.weight, low.bias))
    return LMHead(weight, bias, low.scale, low.softcap)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_jsd_is_that_of_trl(beta, temperature):
    student, teacher, student_head, teacher_head = setting(dtype=torch.float32)
    variables = student_variables(student, student_head)
    total, _ = jsd_loss(
        *(student, teacher, student_head, teacher_head, MASK),
        beta=beta,
        temperature=temperature,
        reduction="token",
    )
    per_token, _ = ChunkedDivergenceFunction.apply(
        *(student[MASK], student_head.weight, student_head.bias),
        *(teacher[MASK], teacher_head.weight, teacher_head.bias),
        *(beta, temperature, student_head.scale, student_head.softcap),
        *(teacher_head.scale, teacher_head.softcap),
    )
    torch.testing.assert_close(total, per_token.sum(), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(total, variables)
    for gradient, trl in zip(
        gradients, torch.autograd.grad(per_token.sum(), variables), strict=True
    ):
        torch.testing.assert_close(gradient, trl, rtol=1e-4, atol=1e-5)


def test_jsd_at_its_ends_is_forward_and_reverse_kl():
    arguments = setting()
    for beta, limit in ((0.0, forward_kl_loss), (1.0, full_kl_loss)):
        assert torch.equal(
            jsd_loss(*arguments, MASK, beta=beta).total, limit(*arguments, MASK).total
        )


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("support", ["student", "teacher", "union"])
def test_top_v_is_the_full_kl(support, renormalize):
    arguments = setting()
    total, _ = topk_loss(*arguments, MASK, k=V, support=support, renormalize=renormalize)
    torch.testing.assert_close(total, full_kl_loss(*arguments, MASK).total)


@all_losses
def test_one_small_gradient_step_lowers_the_reverse_kl(loss):
    mask = torch.ones(1, 2, dtype=torch.bool)
    student, teacher, student_head, teacher_head = setting(kind="weight", mask=mask)
    variables = student_variables(student, student_head)

    def reverse_kl():
        return full_kl_loss(student, teacher, student_head, teacher_head, mask).total

    before = reverse_kl()
    if loss == "sampled":
        gradients = expected_sampled_gradients(student, teacher, student_head, teacher_head)
    else:
        total, _ = LOSSES[loss][0](student, teacher, student_head, teacher_head, mask=mask)
        gradients = torch.autograd.grad(total, variables)
    with torch.no_grad():
        for variable, gradient in zip(variables, gradients, strict=True):
            variable -= 1e-3 * gradient
    assert reverse_kl() < before


def expected_sampled_gradients(student, teacher, student_head, teacher_head):
    """The exact mean, over ŷ_t ~ p_t, of the gradient of one sequence's loss."""
    variables = student_variables(student, student_head)
    sums = [torch.zeros_like(variable) for variable in variables]
    positions = student.shape[1]
    head_tuple = (student_head.weight, student_head.bias, student_head.scale, student_head.softcap)
    for t in range(positions):
        here = torch.arange(positions)[None] == t
        log_p = reference.log_probabilities(student[0, t], head_tuple, 1.0)
        for token, probability in enumerate(log_p.exp().tolist()):
            tokens = torch.full_like(here, token, dtype=torch.long)
            total, _ = sampled_token_loss(
                *(student, teacher, student_head, teacher_head, here, tokens)
            )
            for summed, gradient in zip(sums, torch.autograd.grad(total, variables), strict=True):
                summed += probability / positions * gradient
    return sums


def test_the_sampled_gradient_is_the_reverse_kl_gradient_on_average():
    mask = torch.ones(1, 2, dtype=torch.bool)
    arguments = setting(mask=mask)
    exact, _ = full_kl_loss(*arguments, mask)
    truths = torch.autograd.grad(exact, student_variables(arguments[0], arguments[2]))
    for gradient, truth in zip(expected_sampled_gradients(*arguments), truths, strict=True):
        torch.testing.assert_close(gradient, truth)


@all_losses
def test_identical_models_have_no_loss_and_no_gradient(loss):
    student, _, student_head, _ = setting()
    total, _ = LOSSES[loss][0](student, student, student_head, student_head, mask=MASK)
    variables = student_variables(student, student_head)
    gradients = torch.autograd.grad(total, variables)
    assert total.abs() < 1e-15
    # Truncated, the slope at p = q is Σ_S ∇p, which vanishes on the whole vocabulary only.
    if "truncated" not in loss:
        for gradient in gradients:
            assert gradient.abs().max() < 1e-14


@all_losses
def test_the_teacher_gets_no_gradient(loss):
    student, teacher, student_head, teacher_head = setting()
    LOSSES[loss][0](student, teacher, student_head, teacher_head, mask=MASK).total.backward()
    assert student.grad is not None
    assert teacher.grad is None and teacher_head.weight.grad is None


@all_losses
def test_a_nan_in_a_masked_row_is_never_read_and_its_gradient_is_zero(loss):
    arguments = setting()  # masked rows are NaN
    total, _ = LOSSES[loss][0](*arguments, mask=MASK)
    total.backward()
    assert total.isfinite()
    assert (arguments[0].grad[~MASK] == 0).all() and arguments[0].grad.isfinite().all()
    assert arguments[2].weight.grad.isfinite().all()


@all_losses
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_in_a_supervised_row_reaches_the_total(loss, side, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 2 * V)
    arguments = setting()
    with torch.no_grad():
        arguments[side][3, 2] = torch.nan
    assert LOSSES[loss][0](*arguments, mask=MASK).total.isnan()


@all_losses
def test_an_empty_mask_gives_a_zero_that_can_be_backpropagated(loss):
    empty = torch.zeros_like(MASK)
    student, teacher, student_head, teacher_head = setting()
    total, count = LOSSES[loss][0](student, teacher, student_head, teacher_head, mask=empty)
    total.backward()
    assert total == 0 and count == 0
    assert (student.grad == 0).all() and (student_head.weight.grad == 0).all()


@all_losses
@pytest.mark.parametrize("kind", ["weight", "all"])
def test_chunk_size_does_not_matter(loss, kind, monkeypatch):
    def run():
        student, teacher, student_head, teacher_head = setting(kind=kind)
        total, _ = LOSSES[loss][0](student, teacher, student_head, teacher_head, mask=MASK)
        variables = student_variables(student, student_head)
        return [total, *torch.autograd.grad(total, variables)]

    whole = run()
    for budget in (1, 3 * V, 5 * V + 1):
        monkeypatch.setattr(head, "CHUNK_ELEMENTS", budget)
        for chunked, once in zip(run(), whole, strict=True):
            torch.testing.assert_close(chunked, once, rtol=1e-12, atol=1e-13)


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


@all_losses
def test_no_tensor_holds_the_logits_of_all_positions(loss, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 2 * V)
    mask = torch.ones_like(MASK)
    arguments = setting(mask=mask)
    with LargestTensor() as record:
        LOSSES[loss][0](*arguments, mask=mask).total.backward()
    # 16 positions × 23 logits = 368; a head has 23 × 7 = 161 weights.
    assert record.largest == max(V * D_TEACHER, 2 * V)
    with LargestTensor() as record:
        torch.zeros(mask.numel(), V)
    assert record.largest == mask.numel() * V  # the instrument does see such a tensor


def test_only_supervised_rows_meet_a_head(monkeypatch):
    seen = []
    plain = LMHead.logits

    def counting(self, rows, temperature=1.0, *, out):
        seen.append(len(rows))
        return plain(self, rows, temperature, out=out)

    monkeypatch.setattr(LMHead, "logits", counting)
    full_kl_loss(*setting(), MASK)
    assert seen == [8, 8]


def test_a_retained_graph_can_be_backpropagated_twice():
    student, teacher, student_head, teacher_head = setting()
    total, _ = full_kl_loss(student, teacher, student_head, teacher_head, MASK)
    variables = student_variables(student, student_head)
    first = torch.autograd.grad(total, variables, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(2 * total, variables)
    for again, once, before in zip(second, first, kept, strict=True):
        torch.testing.assert_close(again, 2 * before)
        assert torch.equal(once, before)


def test_without_gradients_there_is_no_graph_and_the_same_value():
    arguments = setting()
    with_graph = full_kl_loss(*arguments, MASK).total
    with torch.no_grad():
        total = full_kl_loss(*arguments, MASK).total
    assert not total.requires_grad
    assert torch.equal(total, with_graph)


def test_a_frozen_head_gets_no_gradient_and_the_states_do():
    student, teacher, student_head, teacher_head = setting()
    total, _ = full_kl_loss(student, teacher, student_head.detach(), teacher_head, MASK)
    total.backward()
    assert student.grad is not None and student_head.weight.grad is None


def test_a_tied_embedding_collects_both_gradients():
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, teacher, _, teacher_head = setting(kind="weight", mask=mask)
    weight = torch.randn(V, D_STUDENT, dtype=torch.float64, generator=torch.manual_seed(1))
    weight.requires_grad_()
    ids = torch.tensor([[1, 2, 3]])
    total, _ = full_kl_loss(weight[ids], teacher, weight, teacher_head, mask)
    heads = ((weight, None, 1.0, None), (teacher_head.weight, None, 1.0, None))
    by_hand, _ = reference.total(
        LOSSES["reverse_kl"][1], weight[ids], teacher, *heads, mask, 1.0, "sequence"
    )
    (gradient,) = torch.autograd.grad(total, weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(by_hand, weight)[0])


def test_a_head_may_be_its_weight_alone():
    student, teacher, student_head, teacher_head = setting(kind="weight")
    plain = full_kl_loss(student, teacher, student_head.weight, teacher_head.weight, MASK)
    assert torch.equal(
        plain.total, full_kl_loss(student, teacher, student_head, teacher_head, MASK).total
    )


def test_autocast_reads_the_head_in_its_dtype_and_computes_the_loss_in_float32():
    arguments = setting(dtype=torch.float32)
    student = arguments[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = full_kl_loss(*arguments, MASK)
    total.backward()
    assert total.dtype == torch.float32 and student.grad.dtype == torch.float32
    low = (states.bfloat16() for states in arguments[:2])
    assert torch.equal(total, full_kl_loss(*low, *arguments[2:], MASK).total)
    assert not torch.equal(total, full_kl_loss(*arguments, MASK).total)


@all_losses
def test_the_split_of_a_batch_does_not_matter(loss):
    arguments = setting()
    student, teacher, *heads = arguments
    function, _ = LOSSES[loss]
    whole = function(*arguments, mask=MASK)
    parts = []
    for b in range(len(MASK)):
        rows = slice(b, b + 1)
        tokens = {"token_ids": TOKENS[rows]} if loss == "sampled" else {}
        parts.append(function(student[rows], teacher[rows], *heads, mask=MASK[rows], **tokens))
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    assert sum(part.count for part in parts) == whole.count


def refused(match, loss=full_kl_loss, replace=(), **options):
    arguments = list(setting())
    for index, value in dict(replace).items():
        arguments[index] = value
    options = {"mask": MASK, **options}
    with pytest.raises(ValueError, match=match):
        loss(*arguments, **options)


def test_k_outside_the_vocabulary_is_refused():
    refused(rf"between 1 and the vocabulary's {V} tokens, got {V + 1}", topk_loss, k=V + 1)
    for k in (0, -1, 1.5, True):
        refused(rf"k must be a whole number of at least 1, got {k}", topk_loss, k=k)


@all_losses
def test_unequal_vocabularies_are_refused_by_name_and_size(loss):
    larger = torch.zeros(V + 2, D_TEACHER)
    refused(
        rf"student_head has {V} tokens and teacher_head {V + 2}.*representation-only",
        LOSSES[loss][0],
        {3: larger},
    )


@all_losses
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(loss, temperature):
    refused(r"temperature must be positive and finite", LOSSES[loss][0], temperature=temperature)


@all_losses
def test_an_unknown_reduction_is_refused(loss):
    refused(
        "reduction must be 'sequence' or 'token', got 'mean'", LOSSES[loss][0], reduction="mean"
    )


def test_an_unknown_support_is_refused():
    refused("support must be one of .*'union'.*got 'both'", topk_loss, support="both")


def test_a_loss_that_looks_at_tokens_is_refused_without_them():
    refused("looks at the rollout's tokens: pass token_ids", sampled_token_loss)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_outside_0_to_1_is_refused(beta):
    refused(rf"beta must be between 0 .* and 1 .*got {beta}", jsd_loss, beta=beta)


def test_shapes_that_do_not_fit_are_refused():
    states = torch.zeros(*MASK.shape, D_TEACHER)
    refused(r"student_hidden must be .*\[4, 4, 5\].*got \[4, 4, 7\]", replace={0: states})
    refused(r"teacher_hidden must be .*\[4, 4, 7\].*got \[4, 3, 7\]", replace={1: states[:, :3]})
    refused(r"mask must be \[B, K\], got shape \(16,\)", mask=MASK.flatten())
    refused(
        r"token_ids must be integers of the mask's shape \[4, 4\], got torch.int64 \[4, 3\]",
        functools.partial(sampled_token_loss, token_ids=TOKENS[:, :3]),
    )
    refused(
        r"token_ids must be integers", functools.partial(sampled_token_loss, token_ids=TOKENS * 1.0)
    )


def test_token_ids_outside_the_vocabulary_are_refused_where_supervised_only():
    tokens = TOKENS.masked_fill(~MASK, -100)
    arguments = setting()
    assert torch.equal(
        sampled_token_loss(*arguments, MASK, tokens).total,
        sampled_token_loss(*arguments, MASK, TOKENS).total,
    )
    tokens[0, 0] = V
    refused(
        rf"supervised token_ids must be in 0..{V - 1}, got \d+..{V}",
        functools.partial(sampled_token_loss, token_ids=tokens),
    )


def test_a_head_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"a tensor \[V, width\], got Linear"):
        LMHead(torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"bias is \[V\] = \[3\], got shape \(2,\)"):
        LMHead(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"softcap must be positive"):
        LMHead(torch.zeros(3, 2), softcap=0.0)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (SampledToken, {}),
        (TopK, {"k": 16, "support": "student", "renormalize": True}),
        (ReverseKL, {}),
        (ForwardKL, {}),
        (JSD, {"beta": 0.5}),
    ],
)
def test_parameters_and_defaults_stay(kind, own):
    assert dataclasses.asdict(kind()) == own
