"""Compare the messages of a session with a model, over random messages, answers, parts, cancellations and ages.

`MODEL_EXAMPLES=2000 pytest -m long tests/messages/test_model.py` runs random sequences.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.errors import ServiceError
from service.messages.dispatcher import Dispatcher
from service.messages.history import MessageHistory, PageRequest
from service.messages.inbox import Inboxes
from service.messages.message import Chunk, Message, NewMessage, answer_id_of
from service.observability.metrics import Metrics
from service.redis_client.factory import redis_py_client
from service.settings import Settings
from tests.aging import age
from tests.conftest import SECRET, create_session, new_session_events, new_session_store
from tests.redis_contents import KEYS
from tests.redis_server import RedisServer
from tests.sessions.test_caps_model import RUN, each_size, pipeline_to

MAX_MESSAGES = 6
TIMEOUT_MINUTES, STEP_MINUTES = 30, 5
MINUTE_MS = 60_000

keys = st.sampled_from(["", "", "k1", "k2"])
contents = st.sampled_from(["a", "b"])
any_index = st.integers(0, 10_000)

_T = TypeVar("_T")


@dataclass
class Question:
    """A message of the user, and the state of its answer."""

    message: Message
    is_answered: bool = False
    is_cancelled: bool = False
    next_chunk: int = 0


@dataclass
class Model:
    """The messages of a session. `questions` also contains dropped ones."""

    messages: list[Message] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    idle_minutes: int = 0

    @property
    def is_expired(self) -> bool:
        return self.idle_minutes >= TIMEOUT_MINUTES

    def earlier(self, key: str, *, is_agent: bool) -> Message | None:
        """The message that has this client message id."""
        found = [each for each in self.messages if key and (each.client_message_id, each.is_agent) == (key, is_agent)]
        return found[0] if found else None

    def has(self, question: Question) -> bool:
        return question.message in self.messages

    def add(self, message: Message) -> None:
        self.messages = [*self.messages, message][-MAX_MESSAGES:]


class Messages(RuleBasedStateMachine):
    """The messages of one session, compared with those of the model."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis = redis_py_client(url, 10)
        self._client = self._run(pipeline_to(self._redis))
        options = Settings(session_max_messages=MAX_MESSAGES)
        events = new_session_events(Metrics())
        self._dispatcher = Dispatcher(self._client, KEYS, Inboxes(self._client, KEYS, events, options), events)
        self._history = MessageHistory(
            self._client, self._client, KEYS, events, self._dispatcher, Metrics(), SECRET, options
        )
        self._run(self._redis.flushall())
        self._session_id = self._run(create_session(new_session_store(self._client, options))).id
        self._model = Model()

    def teardown(self) -> None:
        self._run(self._dispatcher.aclose())
        self._run(self._client.aclose())
        self._run(self._redis.aclose())
        self._runner.close()

    @rule(content=contents, key=keys)
    def send(self, content: str, key: str) -> None:
        new = NewMessage(content, client_message_id=key)
        if (message := self._send(new)) is not None:
            self._model.questions.append(Question(message))
            self._model.idle_minutes = 0

    @precondition(lambda self: self._model.questions)
    @rule(content=contents, key=keys, index=any_index)
    def answer(self, content: str, key: str, index: int) -> None:
        question = self._any(index)
        is_first = not question.is_answered
        message = self._send(
            NewMessage(content, role="agent", client_message_id=key, in_reply_to=question.message.id), question
        )
        if message is not None:
            assert (message.id == answer_id_of(question.message.id)) is is_first
            question.is_answered = True

    @precondition(lambda self: self._model.questions)
    @rule(index=any_index, offset=st.sampled_from([-1, 0, 0, 0, 1]))
    def append_chunk(self, index: int, offset: int) -> None:
        question = self._any(index)
        position = max(question.next_chunk + offset, 0)
        result = self._attempt(self._history.append_chunk(self._session_id, Chunk(question.message.id, position, "x")))
        if (error := self._error_for(question)) is not None:
            assert result == error
        elif question.is_answered:
            assert result == "MESSAGE_ALREADY_ANSWERED"
        elif position > question.next_chunk:
            assert result == "CHUNK_OUT_OF_ORDER"
        else:
            assert result is question.is_cancelled
            question.next_chunk = max(question.next_chunk, position + 1)

    @precondition(lambda self: self._model.questions)
    @rule(index=any_index)
    def cancel(self, index: int) -> None:
        question = self._any(index)
        result = self._attempt(self._history.cancel(self._session_id, question.message.id))
        assert result == self._error_for(question)
        if result is None and not question.is_answered:
            question.is_cancelled = True

    @rule()
    def grow_older(self) -> None:
        if not self._model.is_expired:
            self._run(age(self._redis, self._session_id, STEP_MINUTES * MINUTE_MS))
            self._model.idle_minutes += STEP_MINUTES

    @rule(index=any_index, limit=st.integers(1, MAX_MESSAGES + 1), is_ascending=st.booleans())
    def page_after(self, index: int, limit: int, is_ascending: bool) -> None:
        times = [0, *(message.created_at_ms for message in self._model.messages)]
        after = times[index % len(times)]
        later = [message for message in self._model.messages if message.created_at_ms > after]
        expected = later[:limit] if is_ascending else later[:limit][::-1]
        self._check_page(PageRequest(limit, after=after, is_ascending=is_ascending), expected, len(later) > limit)

    @precondition(lambda self: self._model.messages)
    @rule(index=any_index, limit=st.integers(1, MAX_MESSAGES + 1))
    def page_before(self, index: int, limit: int) -> None:
        before = self._model.messages[index % len(self._model.messages)].created_at_ms
        earlier = [message for message in self._model.messages if message.created_at_ms < before]
        self._check_page(PageRequest(limit, before=before), earlier[::-1][:limit], len(earlier) > limit)

    @invariant()
    def the_transcript_matches_the_model(self) -> None:
        if not self._model.messages:
            return
        page = self._run(self._history.transcript(self._session_id, PageRequest(100, is_ascending=True)))
        assert page.messages == self._model.messages
        times = [message.created_at_ms for message in page.messages]
        assert times == sorted(set(times))

    def _send(self, new: NewMessage, question: Question | None = None) -> Message | None:
        """Send a message, check the result, and return the message if it was added."""
        is_agent = new.role == "agent"
        result = self._attempt(self._history.send(self._session_id, new))
        if self._model.is_expired:
            assert result == "SESSION_EXPIRED"
            return None
        earlier = self._model.earlier(new.client_message_id, is_agent=is_agent)
        if earlier is not None:
            if (earlier.content, earlier.in_reply_to) != (new.content, new.in_reply_to):
                assert result == "CLIENT_MESSAGE_ID_REUSED"
            else:
                assert not isinstance(result, str)
                assert (result.message, result.is_replay) == (earlier, True)
            return None
        if question is not None and not self._model.has(question):
            assert result == "MESSAGE_NOT_FOUND"
            return None
        assert not isinstance(result, str)
        assert result.is_replay is False
        self._model.add(result.message)
        return result.message

    def _check_page(self, request: PageRequest, expected: list[Message], has_more: bool) -> None:
        result = self._attempt(self._history.page(self._session_id, request))
        if self._model.is_expired:
            assert result == "SESSION_EXPIRED"
        else:
            assert result == (expected, has_more)

    def _error_for(self, question: Question) -> str | None:
        if self._model.is_expired:
            return "SESSION_EXPIRED"
        return None if self._model.has(question) else "MESSAGE_NOT_FOUND"

    def _any(self, index: int) -> Question:
        return self._model.questions[index % len(self._model.questions)]

    def _attempt(self, call: Awaitable[_T]) -> _T | str:
        """Return the result, or the code of the error."""
        try:
            return self._run(call)
        except ServiceError as error:
            return error.code

    def _run(self, call: Awaitable[_T]) -> _T:
        return self._runner.run(_awaited(call))


async def _awaited(call: Awaitable[_T]) -> _T:
    return await call


@each_size
def test_messages_behave_like_the_model(redis_server: RedisServer, examples: int) -> None:
    machine = cast(type[Messages], partial(Messages, redis_server.admin_url))
    run_state_machine_as_test(machine, settings=settings(RUN, max_examples=examples))
