"""Subscribers to the channels of a single server."""

from redis.asyncio.connection import AbstractConnection

from service.redis_client.connector import ConnectionFactory
from service.redis_client.subscriber import Subscriber
from service.settings.redis_url import Host


def new_subscriber(new_connection: ConnectionFactory, timeout_seconds: float) -> Subscriber:
    async def locate(_: str) -> Host | None:
        return None

    async def connect_to(_: Host | None) -> AbstractConnection:
        return await new_connection()

    return Subscriber(locate, connect_to, timeout_seconds)
