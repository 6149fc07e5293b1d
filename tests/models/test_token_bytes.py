import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel, WordPiece
from transformers import PreTrainedTokenizerFast

from oprd.models.token_bytes import TokenBytes
from tests.models.built_tokenizers import BUILT, REAL, WHOLE, characters, sentencepiece, tokenizer

# What breaks alignments of characters.
AWKWARD = [
    "",
    " ",
    "a",
    "  two spaces before",
    "ends in spaces  ",
    "👩‍👩‍👧‍👦 a family, 🏳️‍🌈 and 🇯🇵",
    "e\u0301 decomposed, é composed, ﬁ ligature, Å Å",
    "日本語の文、混合 text。",
    "first\r\nsecond\rthird\n\n\nfourth\t\ttabs",
    "\ufeffa mark of byte order, and nothing\u200b wide",
    "▁ is what stands for a space ▁▁, <0x41> is no byte, Ġ no space",
    "<eos></s><pad><|im_end|><end_of_turn> spelled out",
    "\x00\x1f\x7f\x85",
    "مرحبا שלום हिन्दी ไทย",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 \U0010ffff",
]
TEXT = st.one_of(
    st.sampled_from(AWKWARD), st.text(max_size=40), st.text(" ▁é\ne\u0301🙂a", max_size=20)
)


@functools.cache
def token_bytes(name: str) -> TokenBytes:
    return TokenBytes(tokenizer(name))


def held(test):
    options = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
    return settings(max_examples=60, **options)(test)


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
@held
@given(text=TEXT)
def test_tokens_stand_for_the_very_bytes_of_a_text(name, text):
    made = token_bytes(name)
    assert made.of(made.encode(text.encode())) == text.encode()


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
@held
@given(data=st.binary(max_size=20), text=TEXT)
def test_bytes_that_are_no_text_are_spelled_one_by_one(name, data, text):
    made = token_bytes(name)
    whole = data + text.encode() + data
    assert made.of(made.encode(whole)) == whole


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
@held
@given(text=TEXT, cut=st.integers(0, 200))
def test_a_text_that_is_cut_in_mid_character_keeps_its_bytes(name, text, cut):
    made = token_bytes(name)
    data = text.encode()[: cut % (len(text.encode()) + 1)]
    assert made.of(made.encode(data)) == data


@pytest.mark.parametrize("name", [*BUILT, *REAL])
@held
@given(text=st.text("abc .\n12", max_size=30))
def test_a_text_is_encoded_as_the_tokenizer_does_after_another(name, text):
    """What stands before the text keeps the tokenizer from beginning it with a space."""
    before = "=" if name == "characters" else "日"
    own, made = tokenizer(name), token_bytes(name)
    ids, of_before = (
        own(t, add_special_tokens=False)["input_ids"] for t in (before + text, before)
    )
    if ids[: len(of_before)] == of_before:
        assert made.encode(text.encode()) == ids[len(of_before) :]


@pytest.mark.parametrize("name", [*BUILT, *REAL])
@held
@given(data=st.data())
def test_bytes_of_tokens_are_what_the_tokenizer_decodes_after_others(name, data):
    own, made = tokenizer(name), token_bytes(name)
    ids = data.draw(st.lists(st.integers(0, len(own) - 1), max_size=12))
    ids = [token for token in ids if made[token]]
    before = own("a", add_special_tokens=False)["input_ids"]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    decoded = own.decode([*before, *ids], **options)[len(own.decode(before, **options)) :]
    read = made.of(ids)
    try:
        assert decoded == read.decode()
    except UnicodeDecodeError:
        # How many signs stand for broken bytes is the decoder's affair.
        assert "\ufffd" in decoded


@pytest.mark.parametrize("name", ["byte-level BPE", "SentencePiece with bytes", *REAL])
def test_a_special_token_that_is_spelled_out_is_text(name):
    made, own = token_bytes(name), tokenizer(name)
    for special in own.all_special_tokens[:6]:
        ids = made.encode(special.encode())
        assert not set(ids) & set(own.all_special_ids)
        assert made.of(ids) == special.encode()


def test_special_tokens_and_ids_without_a_token_stand_for_nothing():
    own = sentencepiece()
    made = TokenBytes(own)
    assert [made[own.eos_token_id], made[own.pad_token_id], made[len(own) + 5]] == [b""] * 3


def test_tokens_of_characters_alone_end_before_one_that_they_do_not_have():
    made = TokenBytes(characters())
    assert made.of(made.encode(b"abc def")) == b"abc def"
    assert made.of(made.encode("abc é def".encode())) == b"abc "
    assert made.of(made.encode(b"ab\xff")) == b"ab"
    # What spells its end token is not the end.
    assert made.of(made.encode(b"ab#c")) == b"ab"


def test_characters_that_are_spelled_are_not_without_number():
    """Each costs another pass, so that a text of nothing else ends early and is no trap."""
    made = TokenBytes(sentencepiece())
    data = ("▁" * 500).encode()
    assert 0 < len(made.of(made.encode(data))) <= len(data)


def words(model, decoder) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (words(WordPiece({"a": 0}, unk_token="a"), decoders.WordPiece()), "the kind WordPiece"),
        (words(WordLevel({"a": 0}, unk_token="a"), None), "joins its tokens by spaces"),
        (words(WordLevel({"a": 0}, unk_token="a"), decoders.BPEDecoder()), "the kind BPEDecoder"),
        (object(), "no tokenizer.json behind it"),
    ],
)
def test_a_tokenizer_without_bytes_is_refused_with_those_that_have_them(made, why):
    with pytest.raises(ValueError, match=rf"{why}.*byte-level BPE.*SentencePiece"):
        TokenBytes(made)
