"""A teacher of another vocabulary, in whole runs: it reads its own tokens."""

import copy

import pytest
import torch
from tokenizers import decoders

from oprd.core.spans import NONE
from oprd.models.own_tokens import OwnTokens
from tests import tiny
from tests.models.built_tokenizers import byte_level, characters, merging, sentencepiece
from tests.training import runs
from tests.training.runs import largest_difference, scripted, trainer, weights

PROMPTS = runs.PROMPTS[:8]
TEXTS = [
    "the cat sat", "42 🙂", " leading\r\n", "e\u0301 日本", "", "so <eos> spelled", "a", "the the",
]  # fmt: skip
OWN = {"teacher_tokenizer": "own"}


def written(prompt_ids: list[int]) -> list[int]:
    """A rollout of text that depends on the prompt alone, most ending in EOS, one cut anywhere."""
    number = sum(prompt_ids) % len(TEXTS)
    ids = tiny.tokenizer()(TEXTS[number])["input_ids"][:11]
    return [*ids, tiny.EOS] if number % 3 else ids


def teacher(reads_with, seed: int = 2, **overrides):
    return tiny.reading(reads_with, seed=seed, **overrides)


def made(folder, reads_with=None, rollout=written, **options):
    reads_with = reads_with or sentencepiece()
    options = {"per_device_train_batch_size": 8, "scale": "none", "prompts": PROMPTS, **options}
    model = options.pop("teacher", None) or teacher(reads_with)
    return trainer(
        folder, teacher=model, reads_with=reads_with, rollout=rollout, **{**OWN, **options}
    )


def step(folder, **options):
    """The log of one step on all prompts, and the weights after it."""
    run = made(folder, **options)
    run.train()
    return run.state.log_history[0], weights(run.student)


@pytest.mark.parametrize("kind", [sentencepiece, byte_level, characters], ids=lambda k: k.__name__)
def test_the_loss_compares_states_that_have_read_the_same(tmp_path, kind):
    """By hand: each model reads its own tokens of prompt and response, whole states, pairs."""
    reads_with = kind()
    student, model = tiny.model(seed=1), teacher(reads_with)
    own = OwnTokens.of((student, model), (tiny.tokenizer(), reads_with))
    losses, met, tokens = [], 0, 0
    for prompt in PROMPTS:
        ids, theirs = (made(prompt)["input_ids"] for made in (tiny.tokenizer(), reads_with))
        response = written(ids)
        read = own.read(response)
        with torch.no_grad():
            ours, others = (
                torch.stack(m(torch.tensor([of]), output_hidden_states=True).hidden_states[1:])[
                    :, 0
                ]
                for m, of in ((student, ids + response), (model, theirs + read.ids))
            )
        pairs = [(t, u) for t, u in enumerate(read.partners) if u != NONE]
        met, tokens = met + len(pairs), tokens + len(response)
        distances = [
            (ours[:, len(ids) - 1 + t] - others[:, len(theirs) - 1 + u]).square().mean()
            for t, u in pairs
        ]
        losses.append(torch.stack(distances).mean())
    log, _ = step(tmp_path, student=student, teacher=model, reads_with=reads_with)
    assert log["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert log["completions/shared_ratio"] == pytest.approx(met / tokens)
    assert 0 < met < tokens or kind is not characters


def test_any_split_into_micro_batches_takes_the_same_step(tmp_path):
    def double(folder, **options):
        model = teacher(sentencepiece()).double()
        return step(folder, student=tiny.model(seed=1).double(), teacher=model, **options)

    whole = double(tmp_path / "whole")
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    split = double(tmp_path / "split", **parts)
    assert split[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-6)
    assert largest_difference(whole[1], split[1]) < 1e-6


def test_a_teacher_of_the_same_tokens_reads_them_as_they_are_unless_it_is_told_otherwise(tmp_path):
    """The student's own bytes, one by one: the view is another object of the same numbers."""
    plain = step(
        tmp_path / "plain", teacher=tiny.model(seed=2), reads_with=tiny.tokenizer(),
        teacher_tokenizer="student",
    )  # fmt: skip
    own = step(tmp_path / "own", teacher=tiny.model(seed=2), reads_with=tiny.tokenizer())
    assert own[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6)
    assert largest_difference(own[1], plain[1]) < 1e-6
    assert own[0]["completions/shared_ratio"] == 1
    assert "completions/shared_ratio" not in plain[0]


def test_random_tokens_of_broken_characters_train(tmp_path):
    log, _ = step(tmp_path, rollout=scripted, positions="all")
    assert log["loss"] > 0 and 0 < log["completions/shared_ratio"] <= 1


def test_several_updates_on_the_same_rollouts_read_them_once(tmp_path):
    options = {"updates_per_rollout": 2, "max_steps": 2}
    kept, _ = step(tmp_path / "kept", **options)
    again, _ = step(tmp_path / "again", keep_teacher_states=False, **options)
    assert kept["loss"] == pytest.approx(again["loss"])


def test_a_prompt_of_the_teachers_own_goes_with_it(tmp_path):
    plain, _ = step(tmp_path / "plain")
    asked, _ = step(tmp_path / "asked", teacher_template="hint {{ prompt }}")
    assert asked["loss"] != plain["loss"]
    assert asked["completions/shared_ratio"] == plain["completions/shared_ratio"]


def test_what_happens_is_said_before_the_first_step_with_both_renderings(tmp_path, capsys, caplog):
    run = made(tmp_path, disable_tqdm=False)
    assert "in tokens of its own" in caplog.text
    assert "<eos> (end of text) → </s>" in caplog.text
    assert "reads nothing in their place: <system>, <user>" in caplog.text
    run.train()
    said = capsys.readouterr().out
    assert "As the teacher does" in said and "tokens of its own; those between ⟦ and ⟧" in said


def test_messages_go_through_the_teachers_own_chat_template(tmp_path):
    student, reads_with = copy.deepcopy(tiny.tokenizer()), copy.deepcopy(sentencepiece())
    student.chat_template = "<user>{% for m in messages %}{{ m.content }}{% endfor %}<system>"
    reads_with.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    run = made(tmp_path, reads_with=reads_with, tokenizer=student, prompts=prompts)
    rows = run._team.first.prompts.tokens({"prompt": prompts[0]})
    assert reads_with.decode(rows[0]).endswith(f"[user] {PROMPTS[0]}\n[assistant]")
    run.train()
    assert run.state.log_history[0]["loss"] > 0


SEAMS = {
    "adds": (
        "{% for m in messages %}{% if m.role == 'assistant' %}[assistant]\nthought:{% endif %}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
        "adds or strips text before",
    ),
    "strips": (
        "{% for m in messages %}{% if m.role == 'assistant' %}[assistant]{{ m.content | trim }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        "strips what an assistant says",
    ),
}


@pytest.mark.parametrize("kind", SEAMS)
def test_a_template_that_strips_or_adds_text_at_the_seam_is_shown_both_ways(tmp_path, caplog, kind):
    reads_with, student = copy.deepcopy(sentencepiece()), copy.deepcopy(tiny.tokenizer())
    reads_with.chat_template, said = SEAMS[kind]
    student.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS]
    made(tmp_path, reads_with=reads_with, tokenizer=student, prompts=prompts)
    assert said in caplog.text
    assert "[assistant]', and a turn that says ' Yes' ends in" in caplog.text


def test_a_response_too_long_in_the_teachers_tokens_is_refused_with_row_and_both_lengths(tmp_path):
    student, text = byte_level(), "the cat sat"
    ids = student(text)["input_ids"]
    assert len(ids) < len(text)
    options = {
        "tokenizer": student,
        "student": teacher(student, seed=1),
        "prompts": ["a"] * 8,
        "rollout": lambda _: [*ids],
        "max_completion_length": len(ids),
        "teacher": teacher(characters(), max_position_embeddings=len(ids) + 1),
    }
    run = made(tmp_path / "whole", characters(), **options)
    lengths = rf"response 0 of a batch has {len(ids)} tokens for the student and {len(text)} for"
    with pytest.raises(ValueError, match=lengths):
        run.train()
    run = made(tmp_path / "cut", characters(), long_prompts="drop", **options)
    run.train()
    assert run.state.log_history[0]["loss"] > 0


def test_a_response_that_is_met_at_its_ends_alone_is_counted_and_supervised_there(tmp_path):
    """Of abc the student reads ab and c, and the teacher a and bc."""
    student, reads_with = merging("a", "b"), merging("b", "c")
    rollout = [*student("abc")["input_ids"], student.eos_token_id]
    log, _ = step(
        tmp_path,
        rollout=lambda _: [*rollout],
        prompts=["ab"] * 8,
        tokenizer=student,
        student=teacher(student, seed=1),
        reads_with=reads_with,
    )
    assert log["completions/only_ends_ratio"] == 1
    assert log["completions/shared_ratio"] == pytest.approx(2 / 3)
    assert log["supervised_tokens"] == 16


REFUSED = {
    "the sampled token": ({"output_loss": "sampled"}, "output_loss='sampled' looks at single"),
    "the likeliest tokens": ({"output_loss": "topk"}, r"whole distributions \(reverse_kl, forward"),
    "diagnostics": ({"diagnostics_steps": 1}, "leave diagnostics_steps at 0"),
    "an extrapolation": ({"extrapolation": 1.5}, "reads the student's tokens: leave it out"),
    "a server": (
        {"teacher_source": "server", "teacher": None, "teacher_model_name_or_path": "http://x"},
        "on a server reads the student's tokens",
    ),
    "replay": ({"replay": 16}, "drift of all their tokens"),
    "the student as teacher": ({"teacher_source": "copy", "teacher": None}, "has no other tokens"),
    "another name": ({"teacher_tokenizer": "mine"}, "teacher_tokenizer must be"),
    "special tokens that map nothing": (
        {"teacher_special_tokens": {"<eos>": 3}}, "must map the student's tokens",
    ),
    "special tokens of the student's": (
        {"teacher_tokenizer": "student", "teacher_special_tokens": {"<eos>": None}},
        "needs teacher_tokenizer='own'",
    ),
    "an unknown special token": (
        {"teacher_special_tokens": {"<nowhere>": None}}, "no token of the student",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_refused_with_a_reason(tmp_path, case):
    options, message = REFUSED[case]
    options = {**OWN, **options}
    model = options.pop("teacher", teacher(sentencepiece()))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, teacher=model, reads_with=sentencepiece(), **options)


def test_several_teachers_are_refused(tmp_path):
    teachers = [{"name": name, "source": "copy"} for name in ("a", "b")]
    with pytest.raises(ValueError, match="one of several teachers reads the student's tokens"):
        runs.settings(tmp_path, teachers=teachers, **OWN)


def test_a_tokenizer_without_bytes_is_refused_with_those_that_have_them(tmp_path):
    words = copy.deepcopy(characters())
    words.backend_tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match=r"the teacher's tokenizer: .*WordPiece.*byte-level BPE"):
        made(tmp_path, words)


def test_without_it_another_vocabulary_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="teacher_tokenizer='own'"):
        made(tmp_path, teacher_tokenizer="student")


def test_tools_are_refused(tmp_path):
    run = made(tmp_path)
    output = {"completion_ids": torch.zeros(1, 1), "tool_mask": torch.ones(1, 1)}
    with pytest.raises(ValueError, match="what tools return"):
        run.rollouts._read_own_tokens(output)


# --- distributions ------------------------------------------------------------------------------

KL = {"output_loss": "reverse_kl", "representation_weight": 0.0}


@pytest.mark.parametrize("kind", [sentencepiece, byte_level, characters], ids=lambda k: k.__name__)
def test_distributions_meet_in_classes_at_every_token_that_the_teacher_reads(
    tmp_path, kind, caplog
):
    """By hand: logits of both models, probabilities added by class and renormalised, a mean."""
    reads_with = kind()
    student, model = tiny.model(seed=1), teacher(reads_with)
    own = OwnTokens.of((student, model), (tiny.tokenizer(), reads_with))
    aligned = own.aligned((student.config.vocab_size, model.config.vocab_size))
    losses, within = [], 0
    for prompt in PROMPTS:
        ids, theirs = (made(prompt)["input_ids"] for made in (tiny.tokenizer(), reads_with))
        response = written(ids)
        read = own.read(response)
        with torch.no_grad():
            logits = student(torch.tensor([ids + response])).logits[0].double()
            others = model(torch.tensor([theirs + read.ids])).logits[0].double()
        values = []
        for t, (u, ahead) in enumerate(zip(read.latest, read.ahead, strict=True)):
            if u == NONE:
                continue
            classes = aligned.classes.after(ahead, logits.device)
            within += bool(ahead) and classes is not None
            values.append(torch.zeros(()).double())
            if classes is not None:
                p, q = (
                    torch.zeros(classes.count + 1).double().index_add(0, members, row.softmax(0))
                    for members, row in (
                        (classes.student, logits[len(ids) - 1 + t]),
                        (classes.teacher, others[len(theirs) - 1 + u]),
                    )
                )
                p, q = (of[:-1] / of[:-1].sum() for of in (p, q))
                values[-1] = (p * (p / q).log()).sum()
        losses.append(torch.stack(values).mean())
    assert (within > 0) == (kind is not characters)
    log, _ = step(tmp_path, student=student, teacher=model, reads_with=reads_with, **KL)
    assert log["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert f"compared over {aligned.classes.met.count:,} classes of tokens" in caplog.text


@pytest.mark.parametrize("loss", [{}, KL], ids=["states", "distributions"])
def test_a_response_without_tokens_is_read_like_any_other(tmp_path, loss):
    """One whose limit masked it, and all of a batch."""
    log, _ = step(
        tmp_path / "some", rollout=lambda ids: written(ids) if sum(ids) % 2 else [], **loss
    )
    assert log["loss"] > 0 and log["completions/empty_ratio"] > 0
    log, _ = step(tmp_path / "all", rollout=lambda _: [], **loss)
    assert log["loss"] == 0


def test_of_one_vocabulary_classes_are_its_tokens(tmp_path):
    options = {"teacher": tiny.model(seed=2), "reads_with": tiny.tokenizer(), **KL}
    plain = step(tmp_path / "plain", teacher_tokenizer="student", **options)
    own = step(tmp_path / "own", **options)
    assert own[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-4)
    assert largest_difference(own[1], plain[1]) < 1e-5


@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_any_split_of_rollouts_takes_the_same_step_in_distributions(tmp_path, reduction):
    def double(folder, **options):
        model = teacher(sentencepiece()).double()
        options = {"reduction": reduction, **KL, **options}
        return step(folder, student=tiny.model(seed=1).double(), teacher=model, **options)

    whole = double(tmp_path / "whole")
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    split = double(tmp_path / "split", **parts)
    assert split[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-6)
    assert largest_difference(whole[1], split[1]) < 1e-6


def test_an_output_loss_goes_beside_a_bridge_and_with_several_updates(tmp_path):
    run = bridged(tmp_path, output_loss="jsd", updates_per_rollout=2, max_steps=2)
    run.train()
    log = run.state.log_history[0]
    assert log["loss/output"] > 0 and log["loss/representation"] > 0


# --- bridges --------------------------------------------------------------------------------------

BRIDGED = {"bridge": "fit", "bridge_rank": 3, "bridge_prompts": 8, "positions": "all"}


def bridged(folder, **options):
    """A run from the student's own rollouts through a bridge to a wider teacher."""
    model = teacher(sentencepiece(), hidden_size=48)
    return made(folder, teacher=model, rollout=None, **{**BRIDGED, **options})


def test_a_bridge_is_fitted_and_trained_through_in_the_same_view(tmp_path):
    run = bridged(tmp_path)
    run.train()
    log = run.state.log_history[0]
    assert 0 < log["completions/shared_ratio"] <= 1 and log["loss"] > 0
    (space,) = run._teacher.spaces.values()
    assert space.bridge.provenance["teacher_tokenizer"] == "own"


def test_both_heads_meet_over_the_tokens_that_both_vocabularies_spell_alike(tmp_path):
    run = bridged(tmp_path, bridge_basis="heads", layers="last")
    run.train()
    assert run.state.log_history[0]["loss"] > 0


def test_a_bridge_of_the_other_view_is_refused(tmp_path):
    run = bridged(tmp_path / "own")
    file = str(tmp_path / "own" / "bridge" / "bridge.safetensors")
    bridged(tmp_path / "same", bridge=file)
    (space,) = run._teacher.spaces.values()
    bridge = space.bridge
    bridge.provenance = {k: v for k, v in bridge.provenance.items() if k != "teacher_tokenizer"}
    bridge.save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="fitted with teacher_tokenizer='student', and the run"):
        bridged(tmp_path / "refused", bridge=str(tmp_path / "other.safetensors"))


def test_layers_are_paired_by_similarity_in_the_same_view(tmp_path):
    run = bridged(tmp_path, layer_pairing="similarity")
    assert len(run.pairs) == 3


def test_a_prompt_of_the_teachers_own_is_refused_beside_a_bridge(tmp_path):
    with pytest.raises(ValueError, match="the teacher reads prompts of its own"):
        bridged(tmp_path, teacher_template="hint {{ prompt }}")
