"""Python SDK 1 in a session: what it is told by itself. OPERATOR is a command that adds tools."""

import asyncio
import json
import os
from importlib.metadata import version

import httpx
from checks import QUERY, customers, TENANT
from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client


async def main():
    listens, changed, logged = asyncio.Event(), asyncio.Event(), []

    async def see(response):
        if response.request.method == "GET" and response.status_code == 200:
            listens.set()

    def factory(headers=None, timeout=None, auth=None):
        hooks = {"response": [see]}
        return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks)

    async def handle(message):
        if isinstance(message, types.ServerNotification):
            if isinstance(message.root, types.ToolListChangedNotification):
                changed.set()

    async def log(message):
        logged.append((message.level, message.data))

    headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
    transport = streamablehttp_client(
        os.environ["MCP_URL"], headers=headers, httpx_client_factory=factory
    )
    async with (
        transport as (read, write, _),
        ClientSession(read, write, message_handler=handle, logging_callback=log) as session,
    ):
        began = await session.initialize()
        assert began.capabilities.tools.listChanged, began
        assert began.capabilities.resources.subscribe, began

        await session.set_logging_level("info")
        arguments = {"resource_uri": customers(TENANT), "query": QUERY}
        await session.call_tool("query_tenant_data", arguments)
        assert [level for level, _ in logged] == ["info"], logged
        assert logged[0][1]["row_count"] == 3, logged

        await listens.wait()
        before = {tool.name for tool in (await session.list_tools()).tools}
        operator = await asyncio.create_subprocess_exec(*json.loads(os.environ["OPERATOR"]))
        assert await operator.wait() == 0
        await changed.wait()
        after = {tool.name for tool in (await session.list_tools()).tools}
        assert after > before, (before, after)
    print(f"python mcp {version('mcp')}, session: {began.protocolVersion} ok")


asyncio.run(asyncio.wait_for(main(), timeout=120))
