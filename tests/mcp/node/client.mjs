// Speaks to an MCP server with the official TypeScript clients. One JSON object on standard input:
// {client: "v1" | "v2", mode: "auto" | undefined, url, token, steps: [[tool, arguments], …]}; one JSON line for each
// answer: first the list of tools, then each call.
import { readFileSync } from "node:fs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const headers = asked.token ? { Authorization: `Bearer ${asked.token}` } : {};
const about = { name: "engram-tests", version: "1" };

async function connected() {
  if (asked.client === "v1") {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    const client = new Client(about);
    await client.connect(new StreamableHTTPClientTransport(new URL(asked.url), { requestInit: { headers } }));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const client = new Client(about, asked.mode ? { versionNegotiation: { mode: asked.mode } } : {});
  await client.connect(new StreamableHTTPClientTransport(new URL(asked.url), { requestInit: { headers } }));
  return client;
}

const client = await connected();
const { tools } = await client.listTools();
console.log(JSON.stringify(tools.map((tool) => tool.name)));
for (const [name, given] of asked.steps) {
  try {
    const result = await client.callTool({ name, arguments: given });
    console.log(JSON.stringify({ isError: result.isError ?? false, content: result.structuredContent ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code, message: String(error.message) }));
  }
}
await client.close();
