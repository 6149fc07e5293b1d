import copy
import json
import re
from pathlib import Path

import pytest
import torch
from transformers.utils import logging
from typer.testing import CliRunner

from oprd.calibration.identity import drawn_rollouts, model_identity
from oprd.cli.main import app
from oprd.core.bridge import Bridge
from oprd.core.layers import pair_layers
from tests import tiny
from tests.calibration.pairs import student, teacher
from tests.models import zoo
from tests.models.built_tokenizers import sentencepiece


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair")
    for name, model in (("student", student()), ("teacher", teacher())):
        model.save_pretrained(path / name)
        tiny.tokenizer().save_pretrained(path / name)
    return path


def fit(folder: Path, *options: str, output: str = "out", prompts: str = "arithmetic"):
    arguments = {
        "--student": f"{folder}/student",
        "--teacher": f"{folder}/teacher",
        "--output_dir": f"{folder}/{output}",
        "--max_completion_length": "6",
        "--max_prompts": "24",
        "--rank": "4",
    }
    if prompts:
        arguments["--prompts"] = prompts
    flat = [part for pair in arguments.items() for part in pair]
    return CliRunner().invoke(app, ["bridge", "fit", *flat, *options])


def test_a_fit_leaves_bridge_rollouts_and_report(folder: Path):
    done = fit(folder)
    assert done.exit_code == 0, done.output
    assert "Bridge of rank 4 (basis pca) from width 32 to 48" in done.stdout
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "bridge.safetensors",
        "report.json",
        "report.png",
        "report.txt",
        "rollouts.jsonl",
    }
    bridge = Bridge.load(out / "bridge.safetensors")
    assert (bridge.rank, [tuple(pair) for pair in bridge.pairs]) == (4, [(1, 1), (2, 3), (3, 4)])
    assert bridge.provenance is not None
    for role, model in (("student", student()), ("teacher", teacher())):
        expected = {**model_identity(model, tiny.tokenizer()), "model": f"{folder}/{role}"}
        assert bridge.provenance[role] == expected
    assert bridge.provenance["positions"] == {"positions": "last_k", "position_k": 2000}
    assert bridge.provenance["rollouts"] == drawn_rollouts({}, 6, {})
    report = json.loads((out / "report.json").read_text())
    assert report["rows"]["fit"] == bridge.rows
    assert "by layer, before → after the fit" in (out / "report.txt").read_text()


def test_a_second_fit_reads_the_rollouts_of_the_first(folder: Path, monkeypatch):
    assert fit(folder).exit_code == 0
    monkeypatch.setattr(
        "oprd.models.generate.TransformersEngine._batch",
        lambda *_: pytest.fail("a rollout was written"),
    )
    rollouts = ("--rollouts", f"{folder}/out/rollouts.jsonl")
    # How rollouts were drawn is what their file says, not what would draw others.
    other = ("--temperature", "0.5", "--max_completion_length", "9")
    again = fit(folder, *rollouts, *other, "--rank", "6", output="again", prompts="")
    assert again.exit_code == 0, again.output
    bridge = Bridge.load(folder / "again" / "bridge.safetensors")
    assert bridge.rank == 6 and bridge.provenance is not None
    assert bridge.provenance["rollouts"] == drawn_rollouts({}, 6, {})
    # In its own folder the same fit goes on with what is there.
    assert fit(folder, "--rank", "5").exit_code == 0


def test_the_last_layers_are_read_through_both_lm_heads(folder: Path):
    options = ("--basis", "heads", "--layers", "last", "--heads_metric", "prior")
    done = fit(folder, *options, "--heads_rank", "5", output="heads")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "Both LM heads at student layer 3, metric prior, rank 5: a distance of" in said
    assert "(nats) that the student can close" in said and "advised" not in said
    bridge = Bridge.load(folder / "heads" / "bridge.safetensors")
    assert (bridge.basis, bridge.ranks, bridge.heads_metric) == ("heads", (5,), "prior")
    refused = fit(folder, "--basis", "heads", "--layers", "all", output="refused")
    assert refused.exit_code != 0 and "set layers='last'" in refused.output


def test_layers_are_paired_as_in_training(folder: Path):
    done = fit(folder, "--layer_pairing", "from_end", "--layers", "last:2", output="end")
    assert done.exit_code == 0, done.output
    bridge = Bridge.load(folder / "end" / "bridge.safetensors")
    assert bridge.pairs == ((2, 3), (3, 4))
    assert json.loads((folder / "end" / "report.json").read_text())["layer_similarity"] is None


def test_similar_layers_are_measured_on_the_rollouts_of_the_fit(folder: Path):
    done = fit(folder, "--layer_pairing", "similarity", output="similar")
    assert done.exit_code == 0, done.output
    report = json.loads((folder / "similar" / "report.json").read_text())
    table = torch.tensor(report["layer_similarity"])
    pairs = pair_layers("all", 3, 4, "similarity", lambda: table)
    assert Bridge.load(folder / "similar" / "bridge.safetensors").pairs == pairs
    line = ", ".join(f"{s}:{t} ({table[s - 1, t - 1]:.2f})" for s, t in pairs)
    assert f"Layer pairs, student:teacher (CKA): {line}" in " ".join(done.stdout.split())


def test_the_chat_template_is_given_its_options(folder: Path):
    chat = folder / "chat"
    student().save_pretrained(chat)
    tokenizer = tiny.tokenizer().__class__.from_pretrained(folder / "student")
    tokenizer.chat_template = "{{ messages[0].content }}{{ '?' if asking else '!' }}"
    tokenizer.save_pretrained(chat)
    rows = [{"prompt": [{"role": "user", "content": f"say {n}"}]} for n in range(12)]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ("--student", str(chat), "--chat_template_kwargs", '{"asking": true}')
    done = fit(folder, *options, output="asked", prompts=f"{folder}/chat.jsonl")
    assert done.exit_code == 0, done.output
    lines = (folder / "asked" / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines[1:]] == [f"say {n}?" for n in range(12)]
    provenance = Bridge.load(folder / "asked" / "bridge.safetensors").provenance
    assert provenance is not None
    assert provenance["rollouts"]["chat_template_kwargs"] == {"asking": True}


def test_nothing_but_oprds_own_progress_is_shown(folder: Path):
    logging.enable_progress_bar()
    done = fit(folder, output="quiet")
    assert done.exit_code == 0, done.output
    assert "rollouts" in done.stdout and "judging" in done.stdout
    assert done.stderr == ""


def test_rollouts_of_other_settings_are_not_mixed_in(folder: Path):
    assert fit(folder, output="mixed").exit_code == 0
    other = fit(folder, "--temperature", "0.5", output="mixed")
    assert other.exit_code == 1
    assert "was written with sampling=" in other.stderr and "another output" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rank", "33"), "rank 33 is above a width: the student has 32, the teacher 48"),
        (("--rank", "0"), "rank must be at least 1"),
        (("--layers", "4"), "layer 4 is outside 1..3"),
        (("--layers", "2,2"), "layers repeat"),
        (("--layers", "first"), "layers must be"),
        (("--layers", "last:4"), "layers='last:4' asks a model with 3 layers for more"),
        (("--layer_pairing", "similar"), "did you mean similarity"),
        (("--layer_pairing", "4:1"), "student layer 4, and the student has 3 layers and the teac"),
        (("--layer_pairing", "1:1", "--layers", "2"), "selects others: leave layers at 'all'"),
        (("--top_k", "-1"), "top_k must be at least 1, or 0 for all tokens"),
        (("--basis", "svd"), "basis must be one of"),
        (("--temperature", "-1"), "temperature must be finite and at least 0"),
        (("--student", "./nowhere"), "student './nowhere': there is no such file or folder"),
        (("--teacher", "a\0b"), "holds a NUL"),
        (("--rollouts", "r.jsonl"), "give --prompts to write rollouts, or --rollouts"),
        (("--long_prompts", "cut"), "--long_prompts must be"),
        (("--bad_rows", "maybe"), "bad_rows must be"),
        (("--chat_template_kwargs", "yes"), "chat_template_kwargs must be a JSON object such as"),
        (("--max_completion_length", "250"), "fitting prompt 0 has"),
        (("--max_prompts", "1"), "a fit needs one and another"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, options: tuple[str, ...], message: str):
    done = fit(folder, *options, output="bad")
    assert done.exit_code == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1:]) == 1


def test_the_rollouts_of_another_student_are_read_with_a_warning(folder: Path, caplog):
    assert fit(folder).exit_code == 0
    tiny.model("llama", seed=7).save_pretrained(folder / "other")
    tiny.tokenizer().save_pretrained(folder / "other")
    options = ("--student", f"{folder}/other", "--rollouts", f"{folder}/out/rollouts.jsonl")
    done = fit(folder, *options, output="off-policy", prompts="")
    assert done.exit_code == 0, done.output
    assert "was not written by this student: its rows are off-policy" in caplog.text


def test_fewer_rows_than_rank_is_one_sentence(folder: Path):
    done = fit(folder, "--max_rows", "14", "--rank", "16", output="few")
    assert done.exit_code == 1
    assert "rows to fit on determine at most" in done.stderr and "lower the rank" in done.stderr


def test_no_rollouts_to_read_is_one_sentence(folder: Path):
    done = fit(folder, "--rollouts", f"{folder}/none.jsonl", output="none", prompts="")
    assert done.exit_code == 1
    assert "there is no such file" in done.stderr and done.stderr.count("oprd:") == 1


def test_another_tokenizer_is_refused(folder: Path):
    other = tiny.tokenizer().__class__.from_pretrained(f"{folder}/teacher")
    other.add_tokens(["<more>"])
    tiny.model(vocab_size=300).save_pretrained(folder / "longer")
    other.save_pretrained(folder / "longer")
    done = fit(folder, "--student", f"{folder}/longer", output="tokens")
    assert done.exit_code == 1
    assert "the teacher reads 1 of the student's" in done.stderr


# --- a teacher that reads its own tokens ----------------------------------------------------------

TEMPLATES = {
    "student": "{% for m in messages %}{{ m.content }}{% endfor %}<user>",
    "stranger": "{{ opening }}{% for m in messages %}{{ m.content }}{% endfor %}:",
}
OWN = ("--teacher_tokenizer", "own")


@pytest.fixture(scope="module")
def strangers(folder: Path) -> Path:
    """A student and a teacher of other vocabularies, both with a chat template; chats to answer."""
    for name, (model, reads_with) in {
        "student": (student(), tiny.tokenizer()),
        "stranger": (tiny.reading(sentencepiece(), seed=4, hidden_size=48), sentencepiece()),
    }.items():
        place, reads_with = folder / "strangers" / name, copy.deepcopy(reads_with)
        reads_with.chat_template = TEMPLATES[name]
        model.save_pretrained(place)
        reads_with.save_pretrained(place)
    rows = [{"prompt": [{"role": "user", "content": f"What is {n}?"}]} for n in range(24)]
    chats = folder / "strangers" / "chats.jsonl"
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "strangers"


def fit_own(strangers: Path, *options: str, output: str):
    stranger = ("--teacher", f"{strangers}/stranger", "--batch_size", "24")
    chats = f"{strangers}/chats.jsonl"
    return fit(strangers, *stranger, *OWN, *options, output=output, prompts=chats)


def test_a_teacher_of_other_tokens_is_fitted_in_its_own_and_the_bridge_says_so(
    strangers: Path, caplog
):
    done = fit_own(strangers, output="own")
    assert done.exit_code == 0, done.output
    assert "<eos> (end of text) → </s>" in caplog.text
    bridge = Bridge.load(strangers / "own" / "bridge.safetensors")
    assert bridge.provenance is not None and bridge.provenance["teacher_tokenizer"] == "own"
    assert (bridge.student_dim, bridge.teacher_dim) == (32, 48)


def test_what_the_teacher_is_given_for_its_own_tokens_arrives(strangers: Path, monkeypatch, caplog):
    """Its chat template's options, and a token for one of the student's that would have none."""
    from oprd.calibration.models import FitModels

    read = FitModels._teach
    taught = []

    def kept(self, rollout):
        taught.append((self.own, read(self, rollout)))
        return taught[-1][1]

    monkeypatch.setattr(FitModels, "_teach", kept)
    options = {
        "--teacher_chat_template_kwargs": json.dumps({"opening": "so "}),
        "--teacher_special_tokens": json.dumps({"<user>": "</s>", "<eos>": None}),
    }
    flat = [part for pair in options.items() for part in pair]
    done = fit_own(strangers, *flat, output="given")
    assert done.exit_code == 0, done.output
    own, first = taught[0]
    assert own.tokenizer.decode(first.prompt_ids).strip() == "so What is 0?:"
    ids = {name: tiny.tokenizer().convert_tokens_to_ids(name) for name in ("<user>", "<eos>")}
    assert own.special.partners[ids["<user>"]] == sentencepiece().eos_token_id
    assert own.special.partners[ids["<eos>"]] is None
    assert "reads nothing in their place: <eos>, <system>" in caplog.text


def test_heads_are_read_over_the_tokens_that_both_spell_alike_and_their_share_is_said(
    strangers: Path,
):
    done = fit_own(strangers, "--basis", "heads", output="heads")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert re.search(r"both vocabularies spell alike carry \d+\.\d% of the teacher's", said)
    report = json.loads((strangers / "heads" / "report.json").read_text())
    assert 0 < report["carried"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*OWN, "--teacher_special_tokens", '{"<nowhere>": null}'), "no token of the student"),
        ((*OWN, "--teacher_special_tokens", '{"<eos>": "<nowhere>"}'), "no token of the teacher"),
        ((*OWN, "--teacher_special_tokens", "<eos>"), "teacher_special_tokens must be a JSON"),
        (("--teacher_tokenizer", "mine"), "teacher_tokenizer must be"),
        (
            ("--teacher_tokenizer", "student", "--teacher_special_tokens", '{"<eos>": null}'),
            "add --teacher_tokenizer own",
        ),
        (("--teacher_tokenizer", "student"), "let it read tokens of its own"),
    ],
)
def test_bad_input_about_other_tokens_is_one_sentence(strangers: Path, options, message):
    stranger = ("--teacher", f"{strangers}/stranger")
    done = fit(strangers, *stranger, *options, output="bad", prompts=f"{strangers}/chats.jsonl")
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_help_names_every_option():
    shown = CliRunner().invoke(app, ["bridge", "fit", "--help"])
    assert shown.exit_code == 0
    for option in (
        *("--student", "--teacher", "--prompts", "--rollouts", "--rank", "--max_rows"),
        *("--teacher_tokenizer", "--teacher_special_tokens", "--teacher_chat_template_kwargs"),
    ):
        assert option in shown.stdout


def test_a_model_whose_states_are_no_rows_is_refused_before_rollouts(folder: Path):
    model = zoo.model("gemma3n_text")
    model.save_pretrained(folder / "streams")
    tiny.tokenizer().save_pretrained(folder / "streams")
    refused = fit(folder, "--teacher", f"{folder}/streams", output="streams-out")
    assert refused.exit_code == 1
    assert "the teacher's states cannot be read" in " ".join(refused.output.split())
    assert not (folder / "streams-out" / "rollouts.jsonl").exists()
