"""Python SDK 1, as most deployed clients still have it."""

import asyncio
import os
from importlib.metadata import version

import httpx
from checks import check, command
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

PROTOCOL = "2025-11-25"


async def main():
    if url := os.environ.get("MCP_URL"):
        headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
        await run("http", streamablehttp_client(url, headers=headers))
        await check_wrong_token(url)
    if server := command():
        parameters = StdioServerParameters(command=server[0], args=server[1:])
        await run("stdio", stdio_client(parameters))


async def run(name, transport):
    async with transport as (read, write, *_), ClientSession(read, write) as session:
        negotiated = (await session.initialize()).protocolVersion
        assert negotiated == PROTOCOL, negotiated
        await check(session)
    print(f"python mcp {version('mcp')}, {name}: {negotiated} ok")


async def check_wrong_token(url):
    statuses = []

    async def record(response):
        statuses.append(response.status_code)

    def factory(headers=None, timeout=None, auth=None):
        hooks = {"response": [record]}
        return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks)

    headers = {"Authorization": "Bearer wrong"}
    transport = streamablehttp_client(url, headers=headers, httpx_client_factory=factory)
    try:
        async with transport as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
    except Exception:
        assert statuses and set(statuses) == {401}, statuses
    else:
        raise AssertionError("a wrong token was accepted")


asyncio.run(asyncio.wait_for(main(), timeout=120))
