// Buys with x402's own TypeScript client. Reads { url, method, headers, body, secret, asset } from standard input,
// where headers are the hotkey's signature of the request; prints { status, headers, body }.
import { readFileSync } from "node:fs";
import { x402Client, wrapFetchWithPayment } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { privateKeyToAccount } from "viem/accounts";

const order = JSON.parse(readFileSync(0, "utf8"));
const client = new x402Client();
client.register("eip155:*", new ExactEvmScheme(privateKeyToAccount(order.secret)));
const pay = wrapFetchWithPayment(fetch, client);
const answer = await pay(order.url, { method: order.method, headers: order.headers, body: order.body });
const body = await answer.text();
console.log(JSON.stringify({ status: answer.status, headers: Object.fromEntries(answer.headers), body: JSON.parse(body) }));
