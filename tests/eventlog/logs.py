"""Small logs for tests: a clock that is told the time, randomness from a seed, a key provider in memory, records."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from eventlog.driver import LogDriver
from eventlog.drivers.memory import MemoryDriver, MemoryStore
from eventlog.follower import Follower
from eventlog.genesis import create_log
from eventlog.keys.keyring import Keyring
from eventlog.keys.provider import KeyProvider, WrappedKey
from eventlog.records import Head, HeadRef, KeyClass, NewRecord, Record, TokenMark
from eventlog.writer import Appended, LogWriter
from mesh.errors import Damaged, MissingKey

START_US = 1_790_000_000_000_000


class ToldClock:
    """Moves only when slept on or told; sleeping takes no real time."""

    def __init__(self) -> None:
        self.wall_us = START_US
        self.time_s = 0.0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, delay_s: float) -> None:
        self.time_s += delay_s
        self.wall_us += int(delay_s * 1e6)
        await asyncio.sleep(0)


class SeededEntropy:
    """Reproducible, never repeating randomness."""

    def __init__(self, seed: str = "seed") -> None:
        self._seed = seed.encode()
        self._drawn = 0

    def token_bytes(self, size_bytes: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_256(self._seed + self._drawn.to_bytes(8, "big")).digest(size_bytes)

    def uuid(self) -> str:
        return self.token_bytes(16).hex()

    def jitter(self) -> float:
        return self.token_bytes(1)[0] / 256


_nonces = count()


class MemoryProvider:
    """A key provider whose key is in the test's hands."""

    scheme = "memory"
    place = "this test"

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = AESGCM(hashlib.sha256(name.encode()).digest())

    async def wrap(self, material: bytes, context: bytes) -> WrappedKey:
        nonce = next(_nonces).to_bytes(12, "big")  # as with real providers, the same key wraps otherwise each time
        return WrappedKey(self._name, nonce + self._key.encrypt(nonce, material, context))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        if wrapped.kek_id != self._name:
            raise MissingKey(f"this test has no key {wrapped.kek_id}")
        try:
            return self._key.decrypt(wrapped.blob[:12], wrapped.blob[12:], context)
        except InvalidTag:
            raise Damaged("the wrapped key does not open in this test") from None


BOTH: Mapping[KeyClass, KeyProvider] = {each: MemoryProvider(f"kek-{each.value}") for each in KeyClass}
CONFIG_ONLY: Mapping[KeyClass, KeyProvider] = {KeyClass.CONFIG: BOTH[KeyClass.CONFIG]}


def new_record(number: int = 1, key_class: KeyClass = KeyClass.CONFIG, host: str = "api.shop.local") -> NewRecord:
    token = TokenMark(hashlib.sha256(f"token {number}".encode()).digest(), hashlib.sha256(b"body").digest())
    data = {"number": number, "spec": {"serviceDiscovery": {"dns": {"hostname": host}}}}
    return NewRecord(
        "ResourceCreated",
        1,
        "123456789012",
        "arn:aws:iam::123456789012:user/ann",
        "192.0.2.7",
        f"rq-{number}",
        token,
        data,
        key_class,
    )


@dataclass
class Log:
    """A log made in a driver, with what a role needs to write and follow it."""

    driver: LogDriver
    keyring: Keyring
    writer: LogWriter
    clock: ToldClock
    entropy: SeededEntropy
    head: HeadRef

    async def append(self, *records: NewRecord, previous_time_us: int = 0) -> Appended:
        """Append at the head that this Log appended last."""
        done = await self.writer.append(self.head, records, previous_time_us)
        assert isinstance(done, Appended), done
        self.head = done.head
        return done

    def follower(self, providers: Mapping[KeyClass, KeyProvider] = BOTH) -> Follower:
        return Follower(self.driver, Keyring(self.driver, providers), self.clock, self.entropy)

    async def read(self, after: Head | None = None) -> list[Record]:
        """Every record up to the head."""
        return await read_all(self.follower(), after)


async def read_all(follower: Follower, after: Head | None = None) -> list[Record]:
    records: list[Record] = []
    async with aclosing(follower.follow(after)) as batches:
        async for batch in batches:
            records.extend(batch.records)
            if batch.caught_up:
                return records
    raise AssertionError("the follower ended by itself")


async def make_log(driver: LogDriver | None = None, seed: str = "seed") -> Log:
    driver = driver or MemoryDriver(MemoryStore())
    clock, entropy = ToldClock(), SeededEntropy(seed)
    genesis = await create_log(driver, BOTH, clock, entropy)
    keyring = Keyring(driver, BOTH)
    return Log(driver, keyring, LogWriter(driver, keyring, clock, entropy), clock, entropy, genesis.head)


@dataclass
class MemoryLog:
    """A log over a MemoryStore that the test can tamper with."""

    store: MemoryStore
    log: Log


async def make_memory_log(*records: NewRecord, seed: str = "seed") -> MemoryLog:
    store = MemoryStore()
    log = await make_log(MemoryDriver(store), seed)
    for record in records:
        await log.append(record)
    return MemoryLog(store, log)
