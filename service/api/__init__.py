"""The API over HTTP: routes, requests read, responses written, and what goes around each of them."""
