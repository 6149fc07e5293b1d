import copy
import json
import logging
import pickle

import pytest

from oprd import OPRDConfig
from oprd.cli.errors import say
from oprd.log import get_logger
from oprd.runs.card import CARD, CardFacts, write_card
from oprd.runs.metrics import METRICS, append_metrics, begin_metrics
from oprd.runs.record import add_to_record, read_record, write_record
from oprd.secrets import (
    HIDDEN,
    arguments_without_secrets,
    is_secret,
    masked,
    without_secrets,
)

SECRET = "hf_abcdefgh"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """One secret, and what must not be taken for one."""
    monkeypatch.setenv("CLUSTER_PASSWORD", SECRET)
    monkeypatch.setenv("DEBUG_TOKEN", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "harmless")


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "hub_token",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "wandb-api-key",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "clientSecret",
        "accessToken",
        "PGPASSWORD",
        "db_passwd",
    ],
)
def test_a_secret_is_known_by_its_name(name):
    assert is_secret(name)
    assert without_secrets({"a": [{name: "x"}]}) == {"a": [{name: HIDDEN}]}


@pytest.mark.parametrize(
    "name",
    ["pad_token", "max_new_tokens", "tokenizer", "TOKENIZERS_PARALLELISM", "top_k", "keep_best"],
)
def test_what_is_no_secret_is_shown(name):
    assert without_secrets({name: "shown"}) == {name: "shown"}


def test_a_secret_that_is_not_there_is_not_hidden():
    assert without_secrets({"hub_token": None}) == {"hub_token": None}


def test_a_secret_is_known_by_the_value_that_the_environment_holds():
    assert masked(f"a {SECRET} b") == f"a {HIDDEN} b"
    assert without_secrets({"run_name": f"of {SECRET}", SECRET: 1}) == {
        "run_name": f"of {HIDDEN}",
        HIDDEN: 1,
    }
    # Not what stands under other names, nor what is so short that it is a word.
    assert masked("harmless 1") == "harmless 1"


def test_a_secret_is_known_by_the_value_that_stands_under_a_secrets_name_elsewhere():
    settings = {"hub_token": "tok-12345678", "model_init_kwargs": {"auth": "tok-12345678"}}
    assert "tok-" not in json.dumps(without_secrets(settings))
    assert without_secrets({"auth": "tok-12345678"}, settings) == {"auth": HIDDEN}


def test_a_secret_is_known_as_json_writes_it(monkeypatch):
    monkeypatch.setenv("CLUSTER_PASSWORD", 'quoted "and" \\ more')
    assert masked(json.dumps({"a": 'quoted "and" \\ more'})) == json.dumps({"a": HIDDEN})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/a b", f"https://{HIDDEN}@host/a b"),
        ("git+ssh://tok@host:22/x", f"git+ssh://{HIDDEN}@host:22/x"),
        ("https://h/x?a=1&token=abc&b=2", f"https://h/x?a=1&token={HIDDEN}&b=2"),
        ("https://h/x?X-Amz-Signature=abc#d", f"https://h/x?X-Amz-Signature={HIDDEN}#d"),
        # What has no password in it.
        ("https://host/a@main", "https://host/a@main"),
        ('["https://host","me@mail"]', '["https://host","me@mail"]'),
        ("https://h/x?page=1", "https://h/x?page=1"),
    ],
)
def test_passwords_in_urls_are_masked(text, shown):
    assert masked(text) == shown
    assert without_secrets([(text,)]) == [(shown,)]


def test_no_secret_is_in_a_runs_record_metrics_or_card(tmp_path):
    settings = {"dataset": f"https://me:{SECRET}@host", "model_init_kwargs": {"hf_token": "other"}}
    write_record(tmp_path, {"student": f"at {SECRET}"}, settings)
    add_to_record(tmp_path, {"found": SECRET})
    begin_metrics(tmp_path, 0)
    append_metrics(tmp_path, 1, {"said": SECRET, "loss": 1.0})
    write_card(tmp_path, CardFacts(steps=1, dataset=f"https://me:{SECRET}@host", name=SECRET))
    assert read_record(tmp_path)["settings"]["model_init_kwargs"] == {"hf_token": HIDDEN}
    for name in ("run.json", METRICS, CARD):
        text = (tmp_path / name).read_text()
        assert SECRET not in text and "other" not in text, name


def test_no_secret_is_logged_or_said(caplog, capsys):
    with caplog.at_level(logging.WARNING):
        get_logger("oprd.test").warning("%s in https://me:pass@host", SECRET)
        get_logger("oprd.test").warning("100%")
    assert [record.getMessage() for record in caplog.records] == [
        f"{HIDDEN} in https://{HIDDEN}@host",
        "100%",
    ]
    say(f"about {SECRET}")
    assert capsys.readouterr().err == f"about {HIDDEN}\n"


@pytest.fixture
def config(tmp_path):
    return OPRDConfig(
        output_dir=str(tmp_path),
        hub_token="tok-12345678",
        run_name="tok-12345678",
        model_init_kwargs={"token": "inner-123"},
        report_to=[],
        use_cpu=True,
    )


@pytest.mark.parametrize(
    "show", [repr, str, pickle.dumps, lambda c: c.to_json_string(), lambda c: c.to_sanitized_dict()]
)
def test_settings_show_no_secret_wherever_they_go(config, show):
    shown = str(show(config))
    assert "tok-12345678" not in shown and "inner-123" not in shown


def test_pickled_settings_are_the_same_but_for_secrets(config):
    read = pickle.loads(pickle.dumps(config))
    assert (read.hub_token, read.learning_rate) == (None, config.learning_rate)


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy])
def test_copied_settings_keep_their_secrets(config, made):
    assert made(config) == config and made(config) is not config
    assert made(config).hub_token == "tok-12345678"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--hub_token", "hf_x", "--bf16"], ["--hub_token", HIDDEN, "--bf16"]),
        (["--hub-token=hf_x=y", "1"], [f"--hub-token={HIDDEN}", "1"]),
        (["--hub_token", "hf_x", "y"], ["--hub_token", HIDDEN, HIDDEN]),
        (["--push_to_hub", "--hub_token"], ["--push_to_hub", "--hub_token"]),
        (['--model_init_kwargs={"token": "x"}'], [f'--model_init_kwargs={{"token": "{HIDDEN}"}}']),
        (["--model_init_kwargs", '{"dtype":1}'], ["--model_init_kwargs", '{"dtype":1}']),
        (["--run_name", f"of {SECRET}"], ["--run_name", f"of {HIDDEN}"]),
        (["--eos_token", "</s>", "--top_k=1"], ["--eos_token", "</s>", "--top_k=1"]),
    ],
)
def test_a_command_line_is_shown_without_the_values_of_secrets(given, shown):
    assert arguments_without_secrets(given) == shown
