"""ETag and If-Match: every answer that is a session tells its revision, and a change may name those that it is for."""

import pytest
from multidict import CIMultiDict

from service.api.request_headers import expected_revisions_of
from service.errors import InvalidRequest
from tests.api.test_json_response import answers_to
from tests.bad_input.helpers import invalid_fields
from tests.conftest import AGENT, USER, HttpClient
from tests.test_walkthrough import SESSIONS, open_session

VERBS = {
    "get": ("GET", ""),
    "head": ("HEAD", ""),
    "heartbeat": ("POST", "/heartbeat"),
    "renew": ("POST", "/renew"),
}
CHANGES = {"timeout": {"timeoutMinutes": 60}, "metadata": {"channel": "phone"}}

both = pytest.mark.parametrize(("what", "change"), CHANGES.items(), ids=CHANGES)


class Asking:
    """A request that has these lines of If-Match."""

    def __init__(self, *lines: str) -> None:
        self.headers = CIMultiDict([("If-Match", line) for line in lines])


def read(*lines: str) -> object:
    return expected_revisions_of(Asking(*lines))  # type: ignore[arg-type]


async def test_a_new_session_is_at_its_first_revision(client: HttpClient) -> None:
    created = await client.post(SESSIONS, json={"agentId": AGENT, "userId": USER})

    assert created.headers["ETag"] == '"1"'


@pytest.mark.parametrize(("method", "path"), VERBS.values(), ids=VERBS)
async def test_every_answer_that_is_a_session_has_its_revision(client: HttpClient, method: str, path: str) -> None:
    session_id = await open_session(client)
    await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"channel": "phone"})

    answer = await client.request(method, f"{SESSIONS}/{session_id}{path}")

    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')


@pytest.mark.parametrize("head", ["HTTP/1.0", "HTTP/1.1\r\nHost: a\r\nConnection: close"], ids=["1.0", "close"])
async def test_it_is_there_where_the_connection_is_closed_too(client: HttpClient, head: str) -> None:
    session_id = await open_session(client)

    answer = await answers_to(client, f"GET {SESSIONS}/{session_id} {head}\r\n\r\n".encode())

    assert b'\r\nETag: "1"\r\n' in answer


async def test_what_is_no_session_has_none(client: HttpClient) -> None:
    session_id = await open_session(client)

    answers = [await client.get(SESSIONS), await client.delete(f"{SESSIONS}/{session_id}")]

    assert ["ETag" in answer.headers for answer in answers] == [False, False]


@both
async def test_each_change_is_a_revision(client: HttpClient, what: str, change: object) -> None:
    session_id = await open_session(client)

    changed = await client.patch(f"{SESSIONS}/{session_id}/{what}", json=change, headers={"If-Match": '"1"'})

    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')


@both
async def test_over_another_revision_it_is_refused_with_the_one_there_is(
    client: HttpClient, what: str, change: object
) -> None:
    session_id = await open_session(client)
    await client.patch(f"{SESSIONS}/{session_id}/metadata", json={"topic": "weather"})

    refused = await client.patch(f"{SESSIONS}/{session_id}/{what}", json=change, headers={"If-Match": '"1"'})

    refusal = await refused.json()
    assert (refused.status, refusal["code"]) == (412, "PRECONDITION_FAILED")
    assert refusal["details"] == {"sessionId": session_id, "etag": '"2"'}
    assert refused.headers["ETag"] == '"2"'


@both
@pytest.mark.parametrize("malformed", ["1", "", "'1'", '"1', '"1" "2"', '*, "1"', 'w/"1"', '"1 "'])
async def test_what_is_no_list_of_tags_is_named(client: HttpClient, what: str, change: object, malformed: str) -> None:
    session_id = await open_session(client)

    answer = await client.patch(f"{SESSIONS}/{session_id}/{what}", json=change, headers={"If-Match": malformed})

    assert list(await invalid_fields(answer)) == ["If-Match"]


@pytest.mark.parametrize("lines", [(), ("*",), (" * ",)])
def test_without_a_tag_any_revision_will_do(lines: tuple[str, ...]) -> None:
    assert read(*lines) is None


@pytest.mark.parametrize(
    ("lines", "revisions"),
    [
        (['"7"'], {b"7"}),
        (['"7", "8"'], {b"7", b"8"}),
        (['"7"', '"8"'], {b"7", b"8"}),
        ([',"7" ,\t,"8",'], {b"7", b"8"}),
        (['W/"7", "8"'], {b"8"}),
        (['W/"7"'], set()),
        (['""', '"07"', '"-7"', '"a"', '"\N{ARABIC-INDIC DIGIT SEVEN}"', '"\udcff"', '"' + "7" * 17 + '"'], set()),
    ],
)
def test_tags_that_may_be_of_a_session_are_kept(lines: list[str], revisions: set[bytes]) -> None:
    assert read(*lines) == revisions


@pytest.mark.parametrize("line", ['"\x7f"', '"\x00"', '"7"\n', '"7";"8"', "," * 8000, '"7", ' * 1600 + "8"])
def test_nothing_else_is_a_list_of_tags(line: str) -> None:
    with pytest.raises(InvalidRequest):
        read(line)
