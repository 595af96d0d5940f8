// What every client must see of the server; main.rs describes the variables.

import assert from 'node:assert/strict';

export const { EXPECT_TENANT: tenant, FOREIGN_TENANT: foreign } = process.env;
export const TOOLS = ['get_tenant_metadata', 'list_tenant_resources', 'query_tenant_data'];
const RESULT = ['columns', 'elapsed_ms', 'resource_uri', 'row_count', 'rows', 'truncated'];
export const QUERY = 'SELECT id, email FROM customers ORDER BY id LIMIT 3';

export const customers = (tenant) => `mcp://${tenant}/database/table/customers`;

/** The stdio server to start, if there is one. */
export const command = JSON.parse(process.env.MCP_COMMAND ?? 'null');

/** Fails the script instead of hanging the test that runs it. */
export const deadline = () =>
    setTimeout(() => {
        console.error('took longer than two minutes');
        process.exit(1);
    }, 120_000).unref();

/** Options of a Streamable HTTP transport, which add the status of every answer to `statuses`. */
export const httpOptions = (token, statuses = []) => ({
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
    fetch: async (url, init) => {
        const response = await fetch(url, init);
        statuses.push(response.status);
        return response;
    },
});

/** Runs every check on `client`: list, read, query, be refused. */
export async function check(client) {
    const call = (name, args = {}) => client.callTool({ name, arguments: args });

    const { tools } = await client.listTools();
    assert.deepEqual(tools.map((tool) => tool.name).sort(), TOOLS);
    assert(tools.every((tool) => tool.outputSchema?.type === 'object'), 'an output schema is missing');

    const uris = await resourceUris(client);
    assert(uris.includes(customers(tenant)), `${uris}`);
    assert(uris.every((uri) => uri.startsWith(`mcp://${tenant}/`)), `${uris}`);

    const { contents } = await client.readResource({ uri: customers(tenant) });
    assert.equal(contents[0].uri, customers(tenant));
    assert(contents[0].text);

    const answer = await call('query_tenant_data', { resource_uri: customers(tenant), query: QUERY });
    assert(!answer.isError, JSON.stringify(answer));
    const result = answer.structuredContent;
    assert.deepEqual(Object.keys(result).sort(), RESULT);
    assert.equal(result.resource_uri, customers(tenant));
    assert.deepEqual(result.columns.map((column) => column.name), ['id', 'email']);
    assert.deepEqual([result.row_count, result.rows.length, result.truncated], [3, 3, false]);
    assert(result.rows.every(([, email]) => email.endsWith(`@${tenant}.example`)), `${result.rows}`);

    const refusal = await call('query_tenant_data', { resource_uri: customers(foreign), query: QUERY });
    assert.equal(refusal.isError, true);
    assert.equal(refusal.structuredContent.error_code, 'FORBIDDEN');

    const metadata = (await call('get_tenant_metadata')).structuredContent;
    assert.equal(metadata.tenant_id, tenant);
}

async function resourceUris(client) {
    const uris = [];
    let cursor;
    do {
        const page = await client.listResources({ cursor });
        uris.push(...page.resources.map((resource) => resource.uri));
        cursor = page.nextCursor;
    } while (cursor !== undefined);
    return uris;
}

/** Checks that `connect`, given options with a wrong token, fails with 401 and nothing else. */
export async function checkWrongToken(connect) {
    const statuses = [];
    await assert.rejects(connect(httpOptions('wrong', statuses)));
    assert.deepEqual([...new Set(statuses)], [401]);
}
