"""The bytes that tokens stand for, and a text as tokens that stand for its very bytes.

A token's bytes are those that it adds to a text that is going on: no space is left out before what
happens to be decoded first, and none is put there before what is encoded. They are read off the
tokenizer's own decoder, one of two kinds in the end:

    byte-level BPE               each character of a token is a byte, in GPT-2's alphabet
    SentencePiece, characters    a token is its text, ▁ a space, <0xNN> a byte where there are such

What looks around a token, such as a decoder that joins words by spaces, has no bytes for it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tokenizers import Tokenizer

KNOWN = (
    "byte-level BPE (GPT-2, Llama 3, Qwen, DeepSeek, gpt-oss), SentencePiece in tokenizer.json "
    "(Llama 2, Mistral, Gemma), and vocabularies whose tokens are joined as they are"
)
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What a decoder does to a single token.
DECODED = ("ByteLevel", "ByteFallback", "Metaspace")
# Bytes that are no UTF-8, one by one, as `surrogateescape` decodes them.
NO_TEXT = re.compile("([\udc80-\udcff])")
# Characters of one text that its tokenizer has no tokens for and that are spelled byte by byte;
# each costs another pass over what is behind it.
SPELLED = 32


def _alphabet() -> dict[str, int]:
    """GPT-2's: a character for every byte, printable ones their own."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


ALPHABET = _alphabet()
LETTERS = {byte: letter for letter, byte in ALPHABET.items()}


class TokenBytes:
    """What tokens are in bytes, both ways.

    Args:
        tokenizer: of a model.

    Raises:
        ValueError: its tokens have no bytes of their own; the message says which tokenizers' do.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        kind = type(tokenizer).__name__
        if not isinstance(backend, Tokenizer):
            raise ValueError(_refusal(f"a {kind} has no tokenizer.json behind it"))
        described = json.loads(backend.to_str())
        self._steps = list(_steps(described["decoder"], kind))
        self._special = {
            index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._names = backend
        self._known: dict[int, bytes] = {}
        self._encoder = Tokenizer.from_str(json.dumps(_going_on(described)))
        # A response that spells a special token out has not written that token.
        self._encoder.encode_special_tokens = True

    def __getitem__(self, token: int) -> bytes:
        """What a token stands for; nothing for special ones and for ids without a token."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def falls_back(self, token: int) -> bool:
        """Whether a token is a byte's, for what the vocabulary does not have otherwise."""
        name = self._names.id_to_token(token) or ""
        falls_back = any(kind == "ByteFallback" for kind, _ in self._steps)
        return falls_back and BYTE.fullmatch(name) is not None

    def of(self, ids: Sequence[int]) -> bytes:
        """What tokens stand for one after another."""
        return b"".join(self[token] for token in ids)

    def encode(self, text: bytes) -> list[int]:
        """Tokens of a text that is going on; together they stand for all of its bytes, or as many.

        Stretches of UTF-8 are encoded as the tokenizer does, without what it would change in them,
        such as accents that it composes. Other bytes, and characters that the vocabulary does not
        have, are spelled byte by byte. Where it has no tokens for bytes, the tokens end there.
        """
        found: list[int] = []
        for part in NO_TEXT.split(text.decode("utf-8", "surrogateescape")):
            if not self._encode_into(found, part):
                break
        return found

    def _encode_into(self, found: list[int], text: str) -> bool:
        """Add the tokens of a stretch of text, or a single other byte; whether they are all."""
        for _ in range(SPELLED):
            if NO_TEXT.match(text) is None:
                text = text[self._encode_as_usual(found, text) :]
            if not text:
                return True
            spelled = [self._of_byte(b) for b in text[0].encode("utf-8", "surrogateescape")]
            if None in spelled:
                return False
            found += cast(list[int], spelled)
            text = text[1:]
        return not text

    def _encode_as_usual(self, found: list[int], text: str) -> int:
        """Add tokens as far as they stand for the text; how many characters of it they are."""
        ids = self._encoder.encode(text, add_special_tokens=False).ids
        wanted = text.encode()
        if self.of(ids) == wanted:
            found += ids
            return len(text)
        # Up to the last token at which a character ends.
        done, kept, characters = 0, 0, 0
        for number, token in enumerate(ids, 1):
            piece = self[token]
            if not piece or wanted[done : done + len(piece)] != piece:
                break
            done += len(piece)
            if done == len(wanted) or wanted[done] & 0xC0 != 0x80:
                kept, characters = number, len(wanted[:done].decode())
        found += ids[:kept]
        return characters

    def _of_byte(self, byte: int) -> int | None:
        """The token of a single byte, None where there is none."""
        for name in (f"<0x{byte:02X}>", LETTERS[byte], chr(byte)):
            token = self._names.token_to_id(name)
            if token is not None and self[token] == bytes([byte]):
                return token
        return None

    def _read(self, token: int) -> bytes:
        name = self._names.id_to_token(token)
        if name is None or token in self._special:
            return b""
        for kind, step in self._steps:
            if kind == "Replace":
                name = name.replace(step["pattern"]["String"], step["content"])
            elif kind == "Metaspace":
                name = name.replace(step["replacement"], " ")
            elif kind == "ByteFallback" and (byte := BYTE.fullmatch(name)):
                return bytes([int(byte[1], 16)])
            elif kind == "ByteLevel" and all(letter in ALPHABET for letter in name):
                return bytes(ALPHABET[letter] for letter in name)
        return name.encode()


def _steps(decoder: Mapping[str, Any] | None, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What a decoder does to each token, in order; what it strips at a text's ends is left out."""
    if decoder is None:
        raise ValueError(_refusal(f"this {kind} joins its tokens by spaces"))
    name = decoder["type"]
    if name == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step, kind)
    elif name in DECODED or (name == "Replace" and "String" in decoder["pattern"]):
        yield name, decoder
    elif name not in ("Fuse", "Strip"):
        raise ValueError(_refusal(f"this {kind} has a decoder of the kind {name}"))


def _refusal(why: str) -> str:
    return (
        f"the bytes of single tokens are not known: {why}. Responses can be read across "
        f"tokenizers between {KNOWN}."
    )


def _going_on(described: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer that encodes a text as the rest of one, and changes nothing in it."""
    return {
        **described,
        "normalizer": _kept(described["normalizer"]),
        "pre_tokenizer": _without_prefix(described["pre_tokenizer"]),
        "truncation": None,
        "padding": None,
    }


def _kept(normalizer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What writes a text in a vocabulary's letters; not what alters it, or begins it anew."""
    if normalizer is None:
        return None
    if normalizer["type"] == "Sequence":
        kept = [_kept(step) for step in normalizer["normalizers"]]
        return {"type": "Sequence", "normalizers": [step for step in kept if step is not None]}
    writes_space = normalizer.get("pattern") == {"String": " "}
    if normalizer["type"] == "ByteLevel" or (normalizer["type"] == "Replace" and writes_space):
        return dict(normalizer)
    return None


def _without_prefix(step: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A pre-tokenizer that puts no space before a text."""
    if step is None:
        return None
    if step["type"] == "Sequence":
        steps = [_without_prefix(inner) for inner in step["pretokenizers"]]
        return {"type": "Sequence", "pretokenizers": steps}
    never = {"Metaspace": {"prepend_scheme": "never"}, "ByteLevel": {"add_prefix_space": False}}
    return {**step, **never.get(step["type"], {})}
