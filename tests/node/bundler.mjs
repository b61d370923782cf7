// A bundler and the gateway behind it, on npm's arbundles; what is paid to it is read by npm's x402 and checked by viem.
// PUT /switches sets faults, GET /seen tells what it took and what it was paid. Prints its port.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { DataItem } from "@dha-team/arbundles";
import { verifyTypedData } from "viem";
import { exact } from "x402/schemes";

const USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
const PAYEE = "0x7777777777777777777777777777777777777777";
const PRICE = "1514";
const DOMAIN = { name: "USD Coin", version: "2", chainId: 8453, verifyingContract: USDC };
const TYPES = {
  TransferWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
};
// loses: answers that are lost after an item was taken. fails: a status in place of all uploads. slow_ms: before each
// answer. hides: taken items are not shown. sells: the x402 route wants to be paid.
const switches = { loses: 0, fails: 0, slow_ms: 0, hides: false, sells: false };
const items = new Map();
const seen = { taken: [], payments: [], settled: [], repeats: 0 };
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const b64url = (bytes) => Buffer.from(bytes).toString("base64url");
const addressOf = (item) => b64url(createHash("sha256").update(item.rawOwner).digest());
const wanted = (error) => ({
  x402Version: 1,
  error,
  accepts: [
    {
      scheme: "exact",
      network: "base",
      maxAmountRequired: PRICE,
      resource: "https://upload.example/v1/x402/data-item/signed",
      description: "",
      mimeType: "application/json",
      payTo: PAYEE,
      maxTimeoutSeconds: 300,
      asset: USDC,
      extra: { name: DOMAIN.name, version: DOMAIN.version },
    },
  ],
});

async function settle(header) {
  seen.payments.push(header);
  const { network, payload } = exact.evm.decodePayment(header);
  const { authorization, signature } = payload;
  const message = { ...authorization, value: BigInt(authorization.value) };
  message.validAfter = BigInt(authorization.validAfter);
  message.validBefore = BigInt(authorization.validBefore);
  const signed = { address: authorization.from, domain: DOMAIN, types: TYPES, message, signature };
  if (!(await verifyTypedData({ ...signed, primaryType: "TransferWithAuthorization" }))) return "invalid signature";
  const { to, value } = authorization;
  if (network !== "base" || to.toLowerCase() !== PAYEE || value !== PRICE) return "other terms";
  if (Number(authorization.validBefore) * 1000 <= Date.now()) return "expired";
  if (seen.settled.includes(authorization.nonce)) return "nonce already used";
  seen.settled.push(authorization.nonce);
}

async function take(body) {
  const item = new DataItem(body);
  if (!(await item.isValid())) return [400, "Invalid Data Item"];
  if (items.has(item.id)) {
    seen.repeats += 1;
    return [202];
  }
  items.set(item.id, item);
  seen.taken.push(item.id);
  return [200, { id: item.id }];
}

function found({ owners, tags }) {
  const of = (item) => Object.fromEntries(item.tags.map(({ name, value }) => [name, value]));
  const edges = [...items.values()]
    .filter((item) => !switches.hides && (!owners || owners.includes(addressOf(item))))
    .filter((item) => tags.every(({ name, values }) => values.includes(of(item)[name])))
    .map((item) => ({ cursor: item.id, node: { id: item.id, owner: { address: addressOf(item) }, tags: item.tags } }));
  return { data: { transactions: { pageInfo: { hasNextPage: false }, edges } } };
}

async function answer(request, body) {
  const [, first, second, third, fourth] = request.url.split("/");
  if (request.url === "/switches") return [200, Object.assign(switches, JSON.parse(body))];
  if (request.url === "/seen") return [200, seen];
  await wait(switches.slow_ms);
  if (request.url === "/graphql") return [200, found(JSON.parse(body).variables)];
  if (first === "v1" && second === "price") return [200, third === "x402" ? { usdcAmount: PRICE } : { winc: "7" }];
  if (first === "v1" && fourth === "status") return items.has(third) ? [200, { status: "CONFIRMED" }] : [404, "No"];
  if (request.method === "POST") {
    if (switches.fails) return [switches.fails, "no"];
    if (second === "x402" && switches.sells) {
      const header = request.headers["x-payment"];
      const error = header ? await settle(header) : "X-PAYMENT header is required";
      if (error) return [402, wanted(error)];
    }
    const taken = await take(body);
    if (switches.loses > 0) {
      switches.loses -= 1;
      return undefined;
    }
    return taken;
  }
  const item = switches.hides ? undefined : items.get(first);
  return item ? [200, item.rawData] : [404, "Not Found"];
}

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const answered = await answer(request, Buffer.concat(parts)).catch((error) => [400, String(error)]);
  if (answered === undefined) return request.socket.destroy();
  const [status, content = ""] = answered;
  response.statusCode = status;
  response.end(typeof content === "string" || Buffer.isBuffer(content) ? content : JSON.stringify(content));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
