"""The secret shared by all replicas on one Redis. Logs contain ids, and Redis contains some values, only as hashes."""

from hashlib import blake2b

from service.errors import StoreUnavailable

HIDDEN = "hidden"
"""Replaces ids in logs and traces until the secret is loaded."""

_HEX_DIGITS = 64
_HEX_ALPHABET = frozenset("0123456789abcdef")
_ID_PURPOSE = b"id"


class SharedSecret:
    """The secret, once it is loaded. Hashes for different purposes are unrelated."""

    def __init__(self) -> None:
        self._value: bytes | None = None
        self._id_hash: blake2b | None = None

    @property
    def is_loaded(self) -> bool:
        return self._value is not None

    def load(self, hex_digits: str) -> None:
        """Set or replace the secret. Raises ValueError unless it is 64 hex digits."""
        if len(hex_digits) != _HEX_DIGITS or not set(hex_digits) <= _HEX_ALPHABET:
            raise ValueError(f"must be {_HEX_DIGITS} hex digits")
        self._value = bytes.fromhex(hex_digits)
        self._id_hash = blake2b(digest_size=6, key=self._value, person=_ID_PURPOSE)

    def hash_id(self, id_: str) -> str:
        """Return 12 hex digits that identify an id in logs and traces. Ids are case-insensitive."""
        if self._id_hash is None:
            return HIDDEN
        keyed = self._id_hash.copy()  # half the cost of a new one
        keyed.update(id_.lower().encode(errors="surrogateescape"))
        return keyed.hexdigest()

    def digest(self, text: str, *, purpose: bytes) -> str:
        """Return 64 hex digits that replace `text` in Redis. Raises StoreUnavailable until the secret is loaded."""
        if self._value is None:
            raise StoreUnavailable("the shared secret is not loaded")
        data = text.encode(errors="surrogateescape")
        return blake2b(data, digest_size=32, key=self._value, person=purpose).hexdigest()
