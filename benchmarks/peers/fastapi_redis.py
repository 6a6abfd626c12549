"""The same session in FastAPI, uvicorn and redis-py, used as their documentation shows."""
# FastAPI is installed only in the environment of this server, so the type checker does not find it.
# mypy: disable-error-code="import-not-found", allow-untyped-decorators

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT


class CamelCaseModel(BaseModel):
    """A model whose JSON members are in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TimeoutConfig(CamelCaseModel):
    timeout_minutes: int = 30
    auto_renew: bool = True
    max_duration_minutes: int = 720
    warning_threshold_minutes: int = 5


class NewSession(CamelCaseModel):
    agent_id: UUID
    user_id: UUID
    metadata: dict[str, Any] = {}


class Session(CamelCaseModel):
    session_id: UUID
    agent_id: UUID
    user_id: UUID
    created_at: datetime
    last_activity: datetime
    expires_at: datetime
    timeout_config: TimeoutConfig
    renewal_count: int
    time_remaining: int
    """In milliseconds."""
    is_near_expiration: bool
    metadata: dict[str, Any]


app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


@app.post("/sessions", status_code=201)
async def create(new_session: NewSession) -> Session:
    session_id = uuid4()
    config = TimeoutConfig()
    now = datetime.now(UTC)
    lifetime = timedelta(minutes=config.timeout_minutes)
    fields: dict[FieldT, EncodableT] = {
        "agentId": str(new_session.agent_id),
        "userId": str(new_session.user_id),
        "createdAt": now.isoformat(),
        "lastActivity": now.isoformat(),
        "renewedAt": now.isoformat(),
        "expiresAt": (now + lifetime).isoformat(),
        "timeoutMinutes": config.timeout_minutes,
        "autoRenew": int(config.auto_renew),
        "maxDurationMinutes": config.max_duration_minutes,
        "warningThresholdMinutes": config.warning_threshold_minutes,
        "renewalCount": 0,
        "revision": 1,
        "metadata": json.dumps(new_session.metadata),
    }
    async with redis.pipeline() as pipeline:
        pipeline.hset(key(session_id), mapping=fields)
        pipeline.expire(key(session_id), lifetime)
        await pipeline.execute()
    return await load(session_id)


@app.get("/sessions/{session_id}")
async def read(session_id: UUID) -> Session:
    return await load(session_id)


async def load(session_id: UUID) -> Session:
    fields = await redis.hgetall(key(session_id))
    if not fields:
        raise HTTPException(404, "Session not found")
    config = TimeoutConfig.model_validate(fields)
    remaining = datetime.fromisoformat(str(fields["expiresAt"])) - datetime.now(UTC)
    derived = {
        "sessionId": session_id,
        "timeoutConfig": config,
        "timeRemaining": int(remaining.total_seconds() * 1000),
        "isNearExpiration": remaining <= timedelta(minutes=config.warning_threshold_minutes),
        "metadata": json.loads(fields["metadata"]),
    }
    return Session.model_validate({**fields, **derived})


def key(session_id: UUID) -> str:
    return f"fastapi:session:{session_id}"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=False, log_level="warning")
