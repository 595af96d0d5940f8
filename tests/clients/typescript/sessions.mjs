// TypeScript SDK 1 in a session: what it is told by itself. OPERATOR is a command that adds tools.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
    LoggingMessageNotificationSchema,
    ToolListChangedNotificationSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { QUERY, customers, deadline, tenant } from './checks.mjs';

const { MCP_URL: url, MCP_TOKEN: token, OPERATOR: operator } = process.env;

deadline();
const listens = Promise.withResolvers();
const changed = Promise.withResolvers();
const logged = [];
const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
    fetch: async (url, init) => {
        const response = await fetch(url, init);
        if (init?.method === 'GET' && response.status === 200) listens.resolve();
        return response;
    },
});
const client = new Client({ name: 'tenantry-tests', version: '0' });
client.setNotificationHandler(ToolListChangedNotificationSchema, () => changed.resolve());
client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
    logged.push(params);
});
await client.connect(transport);
assert.equal(client.getServerCapabilities().tools.listChanged, true);

await client.setLoggingLevel('info');
await client.callTool({
    name: 'query_tenant_data',
    arguments: { resource_uri: customers(tenant), query: QUERY },
});
assert.deepEqual(logged.map(({ level }) => level), ['info']);
assert.equal(logged[0].data.row_count, 3);

await listens.promise;
const before = (await client.listTools()).tools.length;
const [program, ...words] = JSON.parse(operator);
execFileSync(program, words);
await changed.promise;
assert((await client.listTools()).tools.length > before);
await transport.terminateSession();
await client.close();
console.log('typescript sdk, session: ok');
