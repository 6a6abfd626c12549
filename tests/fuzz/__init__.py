"""Whatever arrives: bytes that are no requests, nearly are, or come in pieces, sent to a real process."""
