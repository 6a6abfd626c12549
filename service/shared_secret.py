"""What all replicas on one Redis know and nobody else: logs tell ids, and Redis keeps keys, by hashes that it keys."""

from hashlib import blake2b

from service.errors import StoreUnavailable

HIDDEN = "hidden"
"""What logs and traces have in an id's place while the secret is not known."""

_DIGITS = 64
_HEX = frozenset("0123456789abcdef")
_OF_IDS = b"id"


class SharedSecret:
    """One process's copy. A hash made for one purpose (`person`) tells nothing of those made for another."""

    def __init__(self) -> None:
        self._value: bytes | None = None
        self._of_ids: blake2b | None = None

    @property
    def is_known(self) -> bool:
        return self._value is not None

    def learn(self, digits: str) -> None:
        """It is this from here on. Raises ValueError where it is not 64 hex digits."""
        if len(digits) != _DIGITS or not set(digits) <= _HEX:
            raise ValueError(f"must be {_DIGITS} hex digits")
        self._value = bytes.fromhex(digits)
        self._of_ids = blake2b(digest_size=6, key=self._value, person=_OF_IDS)

    def hashed(self, id_: str) -> str:
        """Twelve hex digits that stand for an id in logs and traces: their readers must not be able to use it."""
        if self._of_ids is None:
            return HIDDEN
        keyed = self._of_ids.copy()  # keyed already: a new one takes twice as long
        keyed.update(id_.encode())
        return keyed.hexdigest()

    def digest(self, text: str, *, person: bytes) -> str:
        """64 hex digits for what is not to be kept as it is. Raises StoreUnavailable while the secret is not known."""
        if self._value is None:
            raise StoreUnavailable("the secret that replicas share is not known")
        told = text.encode(errors="surrogateescape")
        return blake2b(told, digest_size=32, key=self._value, person=person).hexdigest()
