// TypeScript SDK 2: its default, which is the handshake, and the stateless protocol on request.

import assert from 'node:assert/strict';

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { check, checkWrongToken, command, deadline, httpOptions } from './checks.mjs';

const { MCP_URL: url, MCP_TOKEN: token } = process.env;
const MODES = [
    ['default', {}, '2025-11-25'],
    ['auto', { versionNegotiation: { mode: 'auto' } }, '2026-07-28'],
];

async function connect(transport, options) {
    const client = new Client({ name: 'tenantry-tests', version: '0' }, options);
    await client.connect(transport);
    return client;
}

async function run(name, transport, options, expected) {
    const client = await connect(transport, options);
    assert.equal(client.getNegotiatedProtocolVersion(), expected);
    await check(client);
    await client.close();
    console.log(`typescript client, ${name}: ${expected} ok`);
}

deadline();
const http = (options) => new StreamableHTTPClientTransport(new URL(url), options);
for (const [mode, options, expected] of MODES) {
    if (url) {
        await run(`http ${mode}`, http(httpOptions(token)), options, expected);
        await checkWrongToken((httpOptions) => connect(http(httpOptions), options));
    }
    if (command) {
        const stdio = new StdioClientTransport({ command: command[0], args: command.slice(1) });
        await run(`stdio ${mode}`, stdio, options, expected);
    }
}
