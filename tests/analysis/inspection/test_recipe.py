import pytest
import yaml

from oprd.analysis.inspection.advice import advise
from oprd.analysis.inspection.recipe import STEP, WIDTH, recipe
from oprd.cli.arguments import parse
from tests.analysis.inspection.test_advice import CASES, RELATED

PLACES = {
    "model_name_or_path": "a/student",
    "teacher_model_name_or_path": "a/teacher",
    "dataset_name": "additions",
    "output_dir": "runs/x",
}


def test_every_advice_is_a_file_that_training_reads(tmp_path):
    for facts in CASES:
        advice = advise(facts)
        (tmp_path / "train.yaml").write_text(recipe(advice, PLACES, 64))
        data, args, models, _ = parse(["--config", str(tmp_path / "train.yaml")])
        assert models.model_name_or_path == "a/student"
        assert data.dataset_name == "additions"
        for name, value in advice.settings.items():
            assert args.to_dict()[name] == value


def test_each_reason_stands_above_its_setting():
    text = recipe(advise(RELATED), PLACES, 64)
    lines = text.splitlines()
    before = lines[: lines.index("scale: unit")]
    assert "# scale: the sizes of the teacher's states differ by a factor of 15" in " ".join(before)
    assert all(len(line) <= WIDTH for line in lines)


def test_names_of_strangers_are_values_and_no_more():
    hostile = "x: &a !!python/object:os.system\n# <b>\x1b[31m"
    text = recipe(advise(RELATED), {**PLACES, "dataset_name": hostile}, 64)
    assert "\x1b" not in text
    assert yaml.safe_load(text)["dataset_name"] == hostile


def test_pairs_that_yaml_would_read_as_numbers_stay_text():
    similar = RELATED.pairings[0]._replace(name="similarity", pairs="1:1", cosine=0.99)
    facts = RELATED.__class__(**{**vars(RELATED), "pairings": (RELATED.pairings[0], similar)})
    assert yaml.safe_load(recipe(advise(facts), PLACES, 64))["layer_pairing"] == "1:1"


@pytest.mark.parametrize("prompts", [2, 3, 4, 7, 10, 15, 16, 17, 64])
def test_a_step_is_filled_by_the_prompts_that_are_there(prompts):
    text = recipe(advise(RELATED), PLACES, prompts)
    settings = yaml.safe_load(text)
    batch = settings["per_device_train_batch_size"]
    step = batch * settings["gradient_accumulation_steps"]
    assert step == STEP if prompts >= STEP else prompts - batch < step <= prompts
    assert (f"# gradient_accumulation_steps: {prompts} prompts, which are known" in text) == (
        step < STEP
    )
