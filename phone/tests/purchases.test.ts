import { describe, expect, test } from "vitest";

import { ClockSet } from "../src/core/clock";
import type { Payer } from "../src/core/spending";
import { Purchases, StillOpen, TurnLost } from "../src/ui/purchases.svelte";
import { Sessions } from "../src/ui/sessions.svelte";
import { MemoryStore, offerOf, openWallet, ORDER, paying, RECIPIENT, SHOWN, standIn, type Reply } from "./stand-ins";

const wallet = await openWallet();
const LOST = (): never => {
  throw new TypeError("lost");
};

/** Windows of one device at one gateway, each with its own list of purchases. */
async function windows(count: number, reply: (init: RequestInit) => Reply = (init) => (paying(init) ? LOST() : offerOf())) {
  const store = new MemoryStore();
  const turns = { mine: true };
  const devices = { loaded: true, pending: false, refresh: async () => undefined };
  const { shop, paid } = await standIn(reply);
  const opened = Array.from({ length: count }, () => new Purchases(store, shop, () => wallet.open, () => undefined, devices, () => turns.mine));
  for (const each of opened) await each.begin();
  return { store, shop, paid, opened, turns, devices };
}

describe("two windows", () => {
  test("the second signs nothing while a payment of the first is open, even when it began before that", async () => {
    const { opened, paid, store } = await windows(2);
    const [first, second] = opened as [Purchases, Purchases];
    const made = await first.pay(ORDER, await first.offer(ORDER, SHOWN));
    expect(made.state).toBe("unknown");
    const offer = await second.offer(ORDER, SHOWN);
    await expect(second.pay(ORDER, offer)).rejects.toBeInstanceOf(StillOpen);
    expect(paid).toHaveLength(1);
    expect(await store.all("purchases")).toHaveLength(1);
    expect(second.all.map((each) => each.id)).toEqual([made.id]);
  });

  /** A wallet that shows its prompt until the test answers it. */
  async function prompting(): Promise<{ payer: Payer; answer: () => void; asked: Promise<void> }> {
    const key = await wallet.open!.spending();
    let answer = (): void => undefined;
    let seen = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const asked = new Promise<void>((resolve) => (seen = resolve));
    const payer: Payer = {
      address: key.address,
      async authorize(authorization, on) {
        seen();
        await answered;
        return key.authorize(authorization, on);
      },
    };
    return { payer, answer, asked };
  }

  test("a signature that the wallet gives after another window has paid is thrown away", async () => {
    const { opened, paid, store } = await windows(2);
    const [first, second] = opened as [Purchases, Purchases];
    const { payer, answer, asked } = await prompting();
    const waiting = first.pay(ORDER, await first.offer(ORDER, SHOWN), payer);
    await asked;
    await second.pay(ORDER, await second.offer(ORDER, SHOWN));
    answer();
    await expect(waiting).rejects.toBeInstanceOf(StillOpen);
    expect(paid).toHaveLength(1);
    expect(await store.all("purchases")).toHaveLength(1);
  });

  test("a signature that the wallet gives after another window has taken over is thrown away", async () => {
    const { opened, paid, store, turns } = await windows(1);
    const { payer, answer, asked } = await prompting();
    const waiting = opened[0]!.pay(ORDER, await opened[0]!.offer(ORDER, SHOWN), payer);
    await asked;
    turns.mine = false;
    answer();
    await expect(waiting).rejects.toBeInstanceOf(TurnLost);
    expect(paid).toEqual([]);
    expect(await store.all("purchases")).toEqual([]);
  });
});

describe("another device", () => {
  const listing = (more: object) => (init: RequestInit, path = "") =>
    path.startsWith("/sessions/hotkey/") ? { status: 200, body: { sessions: [], ...more } } : paying(init) ? LOST() : offerOf();

  test.each([
    ["that the gateway waits for the payment of more time", { open_payments: ["p1"] }],
    ["that the gateway waits for the payment of a node", { sessions: [{ session_id: "s", status: "payment_pending", created_at: 1 }] }],
  ])("says by the gateway %s: no second one is signed", async (_, more) => {
    const store = new MemoryStore();
    const { shop, paid } = await standIn(listing(more));
    const sessions = new Sessions(store, shop);
    await sessions.begin(wallet.open!);
    const purchases = new Purchases(store, shop, () => wallet.open, () => undefined, sessions, () => true);
    const offer = await purchases.offer(ORDER, SHOWN);
    await expect(purchases.pay(ORDER, offer)).rejects.toBeInstanceOf(StillOpen);
    expect(paid).toEqual([]);
    sessions.stop();
  });

  test("may have paid while the gateway's list of sessions cannot be read: nothing is offered and nothing signed", async () => {
    const { opened, devices, paid } = await windows(1);
    const offer = await opened[0]!.offer(ORDER, SHOWN);
    devices.loaded = false;
    await expect(opened[0]!.offer(ORDER, SHOWN)).rejects.toMatchObject({ kind: "unreachable" });
    await expect(opened[0]!.pay(ORDER, offer)).rejects.toBeInstanceOf(StillOpen);
    expect(paid).toEqual([]);
  });
});

test("between the tap and the wallet nothing is waited for", async () => {
  const { opened } = await windows(1);
  const offer = await opened[0]!.offer(ORDER, SHOWN);
  let task = true; // of the tap: over with the first thing that is waited for
  let asked: boolean | null = null;
  const { address } = await wallet.open!.spending();
  const payer: Payer = {
    address,
    authorize: async () => {
      asked = task;
      throw new Error("declined");
    },
  };
  const paid = opened[0]!.pay(ORDER, offer, payer);
  task = false;
  await expect(paid).rejects.toThrow("declined");
  expect(asked).toBe(true);
});

test.each([
  ["set back by ten minutes", -600_000, 0],
  ["set ahead by a day", 86_400_000, 0],
  ["right after a sleep that no other clock has counted", 600_000, 600_000],
])("by a clock that was %s since the offer nothing is signed before it is compared again", async (_, byMs, truth) => {
  const real = { ms: 1_700_000_000_000, offMs: 0 };
  const { shop, paid } = await standIn(
    (init) => {
      if (paying(init)) return LOST();
      const skewMs = Number((init.headers as Record<string, string>)["X-Timestamp"]) - real.ms;
      return Math.abs(skewMs) > 60_000 ? { status: 401, body: { code: "stale", clock_skew_ms: skewMs } } : offerOf();
    },
    () => real.ms + real.offMs,
    () => 5_000,
  );
  const devices = { loaded: true, pending: false, refresh: async () => undefined };
  const purchases = new Purchases(new MemoryStore(), shop, () => wallet.open, () => undefined, devices, () => true);
  const offer = await purchases.offer(ORDER, SHOWN);
  real.ms += truth;
  real.offMs += byMs - truth;
  await expect(purchases.pay(ORDER, offer)).rejects.toBeInstanceOf(ClockSet);
  expect(paid).toEqual([]);
  const made = await purchases.pay(ORDER, await purchases.offer(ORDER, SHOWN));
  expect(Number(made.authorization.validBefore)).toBe(real.ms / 1000 + 300);
  expect(paid).toHaveLength(1);
});

test("no word about the clock lets a refused authorization go that could still be used", async () => {
  let skew: { unsigned: boolean } | null = null;
  const { opened, paid, shop } = await windows(1, (init) => {
    if (paying(init)) return { status: 402, body: { code: "invalid_payment", error: "no" } };
    const lie = skew;
    skew = null;
    return lie ? { status: 401, body: { code: "stale", clock_skew_ms: -420_000 }, ...lie } : offerOf();
  });
  const [window] = opened as [Purchases];
  expect((await window.pay(ORDER, await window.offer(ORDER, SHOWN))).state).toBe("refused");
  skew = { unsigned: true };
  await expect(window.offer(ORDER, SHOWN)).rejects.toMatchObject({ code: "http_401" });
  expect(shop.clock.offsetMs).toBe(0);
  skew = { unsigned: false };
  const offer = await window.offer(ORDER, SHOWN);
  expect(shop.clock.offsetMs).toBe(420_000);
  await expect(window.pay(ORDER, offer)).rejects.toBeInstanceOf(StillOpen);
  expect(paid).toHaveLength(1);
});

test("a payment that was on its way when the app was killed stays unknown when the gateway says not now", async () => {
  const { opened, store, paid } = await windows(1, (init) => (paying(init) ? { status: 503, body: { code: "disk_full" } } : offerOf()));
  const [window] = opened as [Purchases];
  const refused = await window.pay(ORDER, await window.offer(ORDER, SHOWN));
  expect(refused.state).toBe("closed"); // it was never taken: nothing was lost
  await store.put("purchases", refused.id, { ...refused, state: "sent" });
  await window.begin();
  expect(window.all.map((each) => each.state)).toEqual(["unknown"]);
  expect((await window.send(window.all[0]!)).state).toBe("unknown");
  expect(paid).toHaveLength(1);
});

test("another recipient than that of the first offer is named, and signed for only once the person has accepted it", async () => {
  let recipient = RECIPIENT;
  const { opened, shop, paid } = await windows(1, (init) => (paying(init) ? LOST() : offerOf({ payTo: recipient })));
  const [window] = opened as [Purchases];
  expect((await window.offer(ORDER, SHOWN)).recipient).toBe(RECIPIENT);
  recipient = "0x" + "66".repeat(20);
  await expect(window.offer(ORDER, SHOWN)).rejects.toMatchObject({ field: "recipient", expected: RECIPIENT, found: recipient });
  expect(paid).toEqual([]);
  await shop.noteRecipient("base", recipient);
  expect((await window.offer(ORDER, SHOWN)).recipient).toBe(recipient);
});

test("after the identity is locked its sessions are no more asked for, nor shown", async () => {
  const asked: string[] = [];
  const { shop } = await standIn((_, path) => {
    asked.push(path);
    return { status: 200, body: { sessions: [{ session_id: "s", status: "active", created_at: 1, remaining_seconds: 9 }] } };
  });
  const sessions = new Sessions(new MemoryStore(), shop);
  await sessions.begin(wallet.open!);
  expect(sessions.all).toHaveLength(1);
  sessions.leave();
  expect(sessions.all).toEqual([]);
  asked.length = 0;
  await sessions.refresh();
  await sessions.wake();
  expect(asked).toEqual([]);
});
