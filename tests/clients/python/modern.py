"""Python SDK 2: the stateless protocol, and the handshake of its predecessors."""

import asyncio
import os
from importlib.metadata import version

import httpx2
from checks import check, command
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}


async def main():
    for mode, expected in MODES.items():
        if url := os.environ.get("MCP_URL"):
            async with http_client(os.environ["MCP_TOKEN"]) as http:
                transport = streamable_http_client(url, http_client=http)
                await run(f"http {mode}", transport, mode, expected)
            await check_wrong_token(url, mode)
        if server := command():
            transport = StdioServerParameters(command=server[0], args=server[1:])
            await run(f"stdio {mode}", transport, mode, expected)


async def run(name, transport, mode, expected):
    async with Client(transport, mode=mode) as client:
        assert client.protocol_version == expected, client.protocol_version
        await check(client)
    print(f"python mcp {version('mcp')}, {name}: {expected} ok")


async def check_wrong_token(url, mode):
    statuses = []

    async def record(response):
        statuses.append(response.status_code)

    try:
        async with http_client("wrong", event_hooks={"response": [record]}) as http:
            async with Client(streamable_http_client(url, http_client=http), mode=mode):
                pass
    except Exception:
        assert statuses and set(statuses) == {401}, statuses
    else:
        raise AssertionError("a wrong token was accepted")


def http_client(token, **options):
    return httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30, **options)


asyncio.run(asyncio.wait_for(main(), timeout=120))
