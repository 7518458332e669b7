"""What bytes each token of a vocabulary stands for."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any


class Pieces:
    """What each token stands for.

    Args:
        pieces: The bytes of each token id; empty for special tokens, which have no text.
        labels: Names of tokens without text, for lists of candidates.
    """

    def __init__(self, pieces: Iterable[bytes], labels: dict[int, str] | None = None) -> None:
        self._labels = labels or {}
        self._pieces = [_text_or_bytes(piece) for piece in pieces]

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, token: int) -> str | bytes:
        """The token's text if it is whole characters, else its bytes."""
        return self._pieces[token]

    def label(self, token: int) -> str:
        """The token for people: a special one by its name, half a character as U+FFFD."""
        piece = self._pieces[token]
        if isinstance(piece, str):
            return piece or self._labels.get(token, "")
        return piece.decode("utf-8", "replace")

    @classmethod
    def of(cls, tokenizer: Any, size: int, silent: Collection[int] = ()) -> Pieces:
        """Read them from a transformers tokenizer.

        Args:
            tokenizer: Byte-level BPE and SentencePiece-like ones are read exactly; another kind
                is asked to decode each token by itself.
            size: The model's vocabulary; ids that the tokenizer does not know have no text.
            silent: Ids without text besides the special ones: those that end an answer.
        """
        added = tokenizer.added_tokens_decoder
        known = min(size, len(tokenizer))
        tokens = tokenizer.convert_ids_to_tokens(list(range(known)))
        convert = _converter(tokenizer)
        pieces = []
        labels = {}
        for token, name in enumerate(tokens):
            if token in added:
                labels[token] = added[token].content
            if token in silent or name is None or (token in added and added[token].special):
                pieces.append(b"")
            elif token in added:
                pieces.append(added[token].content.encode())
            else:
                pieces.append(convert(token, name))
        return cls(pieces + [b""] * (size - known), labels)


def _text_or_bytes(piece: bytes) -> str | bytes:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return piece


def _converter(tokenizer: Any) -> Callable[[int, str], bytes]:
    """The function (id, token) -> bytes that fits the tokenizer's decoder."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.decoder.__getstate__()) if backend and backend.decoder else {}
    kinds = {part["type"] for part in (decoder, *decoder.get("decoders", ()))} if decoder else set()
    if "ByteLevel" in kinds:
        alphabet = _byte_alphabet()

        def byte_level(_token: int, name: str) -> bytes:
            if all(char in alphabet for char in name):
                return bytes([alphabet[char] for char in name])
            return name.encode()

        return byte_level
    if kinds & {"Metaspace", "ByteFallback"}:
        return _sentencepiece
    return lambda token, _name: str(tokenizer.decode([token])).encode()


def _sentencepiece(_token: int, name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("\u2581", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The characters GPT-2's byte-level BPE writes the 256 bytes with."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    shifted = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | shifted
