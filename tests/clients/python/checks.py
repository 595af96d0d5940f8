"""What every client must see of the server; main.rs describes the variables."""

import json
import os

TENANT = os.environ["EXPECT_TENANT"]
FOREIGN = os.environ["FOREIGN_TENANT"]
TOOLS = ["get_tenant_metadata", "list_tenant_resources", "query_tenant_data"]
RESULT = ["columns", "elapsed_ms", "resource_uri", "row_count", "rows", "truncated"]
QUERY = "SELECT id, email FROM customers ORDER BY id LIMIT 3"


def customers(tenant):
    return f"mcp://{tenant}/database/table/customers"


def command():
    """The stdio server to start, if there is one."""
    return json.loads(os.environ.get("MCP_COMMAND", "null"))


async def check(client):
    """Runs every check on `client`: list, read, query, be refused."""

    async def call(tool, **arguments):
        return plain(await client.call_tool(tool, arguments))

    tools = plain(await client.list_tools())["tools"]
    assert sorted(tool["name"] for tool in tools) == TOOLS, tools
    assert all(tool["outputSchema"]["type"] == "object" for tool in tools), tools

    uris = await resource_uris(client)
    assert uris, "no resources"
    assert all(uri.startswith(f"mcp://{TENANT}/") for uri in uris), uris
    assert customers(TENANT) in uris, uris

    contents = plain(await client.read_resource(customers(TENANT)))["contents"]
    assert contents[0]["uri"] == customers(TENANT) and contents[0]["text"], contents

    answer = await call("query_tenant_data", resource_uri=customers(TENANT), query=QUERY)
    assert not answer.get("isError"), answer
    result = answer["structuredContent"]
    assert sorted(result) == RESULT, result
    assert result["resource_uri"] == customers(TENANT), result
    assert [column["name"] for column in result["columns"]] == ["id", "email"], result
    assert result["row_count"] == len(result["rows"]) == 3 and not result["truncated"], result
    assert all(email.endswith(f"@{TENANT}.example") for _, email in result["rows"]), result

    refusal = await call("query_tenant_data", resource_uri=customers(FOREIGN), query=QUERY)
    assert refusal["isError"], refusal
    assert refusal["structuredContent"]["error_code"] == "FORBIDDEN", refusal

    metadata = (await call("get_tenant_metadata"))["structuredContent"]
    assert metadata["tenant_id"] == TENANT, metadata


async def resource_uris(client):
    uris, cursor = [], None
    while True:
        page = plain(await client.list_resources(cursor=cursor))
        uris += [resource["uri"] for resource in page["resources"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            return uris


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
