// The Inspector's command line, with --strict: schemas have to be ones that every client can use.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { command, customers, deadline, QUERY, tenant, TOOLS } from './checks.mjs';

const { MCP_URL: url, MCP_TOKEN: token } = process.env;
const program = new URL('node_modules/.bin/mcp-inspector', import.meta.url).pathname;

/** What the Inspector prints for one method; `server` says how it is reached. */
async function inspect(server, method, ...more) {
    const words = ['--cli', ...server, '--method', method, '--format', 'json', '--quiet', ...more];
    const { stdout } = await promisify(execFile)(program, words);
    return JSON.parse(stdout).result;
}

async function check(name, target) {
    for (const era of ['legacy', 'modern']) {
        await checkEra(`${name} ${era}`, [...target, '--protocol-era', era]);
    }
}

async function checkEra(name, server) {
    const { tools } = await inspect(server, 'tools/list', '--strict');
    assert.deepEqual(tools.map((tool) => tool.name).sort(), TOOLS);
    const { resources } = await inspect(server, 'resources/list');
    assert(resources.some(({ uri }) => uri === customers(tenant)), JSON.stringify(resources));
    const call = ['--tool-name', 'query_tenant_data', '--tool-arg'];
    const answer = await inspect(
        server, 'tools/call', ...call, `resource_uri=${customers(tenant)}`, `query=${QUERY}`,
    );
    assert.equal(answer.structuredContent.row_count, 3, JSON.stringify(answer));
    console.log(`inspector, ${name}: strict ok`);
}

deadline();
if (url) {
    const header = `Authorization: Bearer ${token}`;
    await check('http', [url, '--transport', 'http', '--header', header]);
    await assert.rejects(inspect([url, '--transport', 'http'], 'tools/list'), /auth_required/);
}
if (command) {
    await check('stdio', command);
}
