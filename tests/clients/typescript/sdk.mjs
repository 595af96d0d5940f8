// TypeScript SDK 1, as most deployed clients still have it.

import assert from 'node:assert/strict';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { check, checkWrongToken, command, deadline, httpOptions } from './checks.mjs';

const PROTOCOL = '2025-11-25';
const { MCP_URL: url, MCP_TOKEN: token } = process.env;

/** A connected client and the protocol version that it negotiated. */
async function connect(transport) {
    let version;
    // The transport is told the version; the client does not say it.
    const setProtocolVersion = transport.setProtocolVersion?.bind(transport);
    transport.setProtocolVersion = (negotiated) => {
        version = negotiated;
        setProtocolVersion?.(negotiated);
    };
    const client = new Client({ name: 'tenantry-tests', version: '0' });
    await client.connect(transport);
    return [client, version];
}

async function run(name, transport) {
    const [client, version] = await connect(transport);
    assert.equal(version, PROTOCOL);
    await check(client);
    await client.close();
    console.log(`typescript sdk, ${name}: ${version} ok`);
}

deadline();
const http = (options) => new StreamableHTTPClientTransport(new URL(url), options);
if (url) {
    await run('http', http(httpOptions(token)));
    await checkWrongToken((options) => connect(http(options)));
}
if (command) {
    await run('stdio', new StdioClientTransport({ command: command[0], args: command.slice(1) }));
}
