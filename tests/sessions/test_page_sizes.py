"""A page holds a bounded number of bytes, and the following pages continue without gaps."""

import pytest

from service.redis_client.client import RedisClient
from service.sessions import listing as listing_module
from service.sessions.counts import SessionCounts
from service.sessions.keys import Keys
from service.sessions.listing import MAX_PAGE_BYTES, Page, SessionFilter, SessionListing
from service.sessions.store import SessionStore
from tests.conftest import USER, HttpClient, create_session
from tests.test_walkthrough import SESSIONS

METADATA = b'{"note":"%s"}' % (b"x" * 10_000)
FILTERS = [SessionFilter(), SessionFilter(user_id=USER), SessionFilter(user_id=USER, near_expiration=False)]


@pytest.fixture
def listing(redis_client: RedisClient) -> SessionListing:
    return SessionListing(redis_client, Keys(""), SessionCounts(redis_client, Keys("")))


async def all_pages(listing: SessionListing, filter_: SessionFilter) -> list[Page]:
    pages = [await listing.page(filter_, 1000)]
    while (after := pages[-1].next) is not None:
        pages.append(await listing.page(filter_, 1000, after))
    return pages


def ids_of(pages: list[Page]) -> list[str]:
    return [session.id for page in pages for session in page.sessions]


@pytest.mark.parametrize("filter_", FILTERS, ids=["all", "user", "not near expiration"])
async def test_pages_with_much_metadata_are_short(
    store: SessionStore, listing: SessionListing, filter_: SessionFilter
) -> None:
    created = [(await create_session(store, metadata=METADATA)).id for _ in range(60)]

    pages = await all_pages(listing, filter_)

    sizes = [sum(len(session.metadata) for session in page.sessions) for page in pages]
    assert MAX_PAGE_BYTES / 2 < max(sizes) <= MAX_PAGE_BYTES
    assert sorted(ids_of(pages)) == sorted(created)
    assert len(pages) == 3


async def test_pages_of_sessions_near_expiration_are_short(store: SessionStore, listing: SessionListing) -> None:
    near = {"timeout_minutes": 30, "warning_threshold_minutes": 30}
    created = [(await create_session(store, config=near, metadata=METADATA)).id for _ in range(60)]

    pages = await all_pages(listing, SessionFilter(near_expiration=True))

    assert sorted(ids_of(pages)) == sorted(created)
    assert len(pages) == 3


@pytest.mark.parametrize("filter_", FILTERS, ids=["all", "user", "not near expiration"])
async def test_a_page_has_at_least_one_session(
    store: SessionStore, listing: SessionListing, filter_: SessionFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_PAGE_BYTES", 1)
    created = [(await create_session(store)).id for _ in range(5)]

    pages = await all_pages(listing, filter_)

    assert [len(page.sessions) for page in pages] == [1] * 5
    assert sorted(ids_of(pages)) == sorted(created)


async def test_a_response_is_bounded(client: HttpClient) -> None:
    body = {"agentId": USER, "userId": USER, "metadata": {"note": "x" * 10_000}}
    statuses = [(await client.post(SESSIONS, json=body)).status for _ in range(40)]

    response = await client.get(SESSIONS, params={"limit": "1000"})

    assert set(statuses) == {201}
    assert len(await response.read()) < MAX_PAGE_BYTES * 1.2
    assert (await response.json())["nextCursor"] is not None
