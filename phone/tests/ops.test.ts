import { expect, test } from "vitest";

import { look, needsAHand, placeOf, type SystemStatus } from "../src/core/ops";

const WELL: SystemStatus = {
  version: "1",
  environment: "local",
  uptime_s: 1,
  selling: true,
  sessions: {},
  payments: { settled: 3 },
  quarantined: [],
  event_streams: 0,
  ages_s: { "chain head": 4 },
  tree: [{ path: "root/http", kind: "actor", state: "running", restarts: 0, last_error: null, mailbox_depth: 1, mailbox_bound: 64 }],
  money: { since: 0, in_usd: 1, out_usd: 0, refunds_due: 0, refunds_due_usd: 0 },
  extra: {},
};

test("a gateway that is well needs no hand", () => {
  expect(needsAHand(WELL, { ready: true, checks: { ledger: "" } })).toEqual([]);
  expect(needsAHand(WELL, null)).toEqual([]);
});

test("a part that has nothing to do here, and stopped by itself, needs no hand", () => {
  const idle = { ...WELL.tree[0]!, path: "root/relay_rounds", state: "stopped" };
  expect(needsAHand({ ...WELL, tree: [idle] }, null)).toEqual([]);
  expect(needsAHand({ ...WELL, tree: [{ ...idle, last_error: "OSError: full" }] }, null)).toHaveLength(1);
});

test.each<[string, Partial<SystemStatus>, RegExp]>([
  ["a quarantined payment", { quarantined: ["p1"] }, /quarantined: p1/],
  ["a child that is down", { tree: [{ ...WELL.tree[0]!, state: "restarting", last_error: "OSError: full" }] }, /root\/http is restarting: OSError: full/],
  ["a full mailbox", { tree: [{ ...WELL.tree[0]!, mailbox_depth: 64 }] }, /mailbox is full/],
  ["unknown outcomes", { payments: { unknown: 2 } }, /2 payments of unknown outcome/],
  ["refunds due", { money: { ...WELL.money!, refunds_due: 1, refunds_due_usd: 2.4 } }, /1 refunds are due, \$2.4/],
  ["an old chain", { ages_s: { "chain head": 500 } }, /chain head is 500 s old/],
  ["dead letters", { extra: { relay: { dead: 4 } } }, /4 payloads/],
  ["selling that is off", { selling: false }, /selling on/],
])("%s is named", (_, change, said) => {
  expect(needsAHand({ ...WELL, ...change }, null)).toEqual([expect.stringMatching(said)]);
});

test("a node's place is its depth and its name", () => {
  expect(placeOf({ ...WELL.tree[0]!, path: "root/payments/purchases" })).toEqual({ depth: 2, name: "purchases" });
});

function answering(status: Response, ready: Response): (path: string) => Promise<Response> {
  return async (path) => (path === "/status" ? status : ready);
}

test("both answers are read, and a gateway that is not ready says why", async () => {
  const ready = { ready: false, checks: { ledger: "closed" } };
  expect(await look(answering(Response.json(WELL), Response.json(ready, { status: 503 })))).toEqual({ status: WELL, ready });
});

test.each([
  ["an error", answering(Response.json({ error: "The ledger does not answer.", code: "unavailable" }, { status: 503 }), Response.json({})), "/status answers 503: The ledger does not answer."],
  ["another thing", answering(Response.json({}), Response.json({})), "/status answers 200"],
  ["no JSON", answering(new Response("<h1>"), Response.json({})), "no answer"],
])("%s in the place of the status is said and not shown as one", async (_, fetch, wrong) => {
  expect(await look(fetch)).toEqual({ wrong });
});

test("a gateway that hangs is said to", async () => {
  const hanging = (_: string, init: RequestInit): Promise<Response> =>
    new Promise((_resolve, reject) => init.signal!.addEventListener("abort", () => reject(init.signal!.reason as Error)));
  expect(await look(hanging, 10)).toEqual({ wrong: "no answer within 0.01 s" });
});
