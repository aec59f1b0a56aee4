"""Fixtures of the gateway's own tests."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from tests.fakes.conversations import Gateway
from tests.fakes.pools import clock, pool
from tests.redis_server import RedisServer, start_redis

__all__ = ["clock", "pool"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def make_gateway(store: Redis) -> AsyncIterator[Callable[[str], Gateway]]:
    made: list[Gateway] = []

    def make(name: str) -> Gateway:
        made.append(Gateway(name, store))
        return made[-1]

    yield make
    for gateway in made:
        await gateway.close()


@pytest.fixture
def gateway(make_gateway: Callable[[str], Gateway]) -> Gateway:
    return make_gateway("gateway-a")


@pytest.fixture
def other(make_gateway: Callable[[str], Gateway]) -> Gateway:
    return make_gateway("gateway-b")
