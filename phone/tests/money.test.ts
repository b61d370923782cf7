import { describe, expect, test } from "vitest";

import { check, OfferDiffers, type Shown } from "../src/core/offer";
import { authorizationOf, blocks, next, open, outcomeOf, sent, type Outcome, type Purchase, type State } from "../src/core/purchase";
import { pocket } from "../src/core/pocket";
import { money } from "../src/core/format";
import { moneyLine } from "../src/core/money-line";
import { endingSoon, price, units, type Session } from "../src/core/model";

const OFFER = {
  scheme: "exact",
  network: "base",
  maxAmountRequired: "2400000",
  resource: "https://gateway.example/sessions",
  payTo: "0x000000000000000000000000000000000000dEaD",
  maxTimeoutSeconds: 120,
  asset: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
  extra: { name: "USD Coin", version: "2" },
};
const SHOWN: Shown = { network: "base", amount: 2_400_000n };

test.each([
  [null, "real", false, "fine"],
  [4_999_999n, "real", false, "fine"],
  [5_000_000n, "real", false, "unchecked"],
  [5_000_000n, "test", false, "unchecked"],
  [50_000_000n, "real", true, "fine"],
  [50_000_001n, "real", true, "much"],
  [50_000_001n, "real", false, "unchecked"],
  [90_000_000n, "play", false, "fine"],
  [90_000_000n, undefined, false, "fine"],
] as const)("a key that owns %s on a %s network, words checked %s: %s", (owned, kind, checked, said) => {
  expect(pocket(owned, kind, checked)).toBe(said);
});

describe("offers", () => {
  test("the one that was shown is found, wherever it stands", () => {
    const dear = { ...OFFER, maxAmountRequired: "2400000000000000000" };
    const found = check({ accepts: [dear, { ...OFFER, network: "solana" }, OFFER] }, SHOWN);
    expect(found).toMatchObject({ amount: 2_400_000n, recipient: OFFER.payTo, timeoutS: 120 });
  });

  test.each([
    ["amount", { maxAmountRequired: "2400001" }, SHOWN],
    ["amount", { maxAmountRequired: "2.4" }, SHOWN],
    ["amount", { maxAmountRequired: 2_400_000.5 }, SHOWN],
    ["network", { network: "base-sepolia" }, SHOWN],
    ["network", {}, { ...SHOWN, network: "engram-play" }],
    ["asset", { asset: "0x" + "11".repeat(20) }, SHOWN],
    ["token", { extra: { name: "USDC", version: "2" } }, SHOWN],
    ["token", { extra: { name: "USD Coin", version: "1" } }, SHOWN],
    ["recipient", { payTo: "nobody" }, SHOWN],
    ["recipient", {}, { ...SHOWN, recipient: "0x" + "11".repeat(20) }],
    ["timeout", { maxTimeoutSeconds: 31_536_000 }, SHOWN],
    ["timeout", { maxTimeoutSeconds: "120" }, SHOWN],
    ["scheme", { scheme: "upto" }, SHOWN],
  ] as const)("one with another %s is named", (field, change, shown) => {
    expect(() => check({ accepts: [{ ...OFFER, ...change }] }, shown)).toThrow(expect.objectContaining({ field }));
  });

  test.each([null, {}, { accepts: [] }, { accepts: "x" }, { accepts: [null] }, { accepts: Array(21).fill(OFFER) }])("%j is none", (body) => {
    expect(() => check(body, SHOWN)).toThrow(OfferDiffers);
  });
});

const NOW = 1_000_000;
const PURCHASE: Purchase = {
  id: "1",
  buyer: "5F",
  path: "/sessions",
  body: "{}",
  tier: "lite",
  hours: 1,
  amount: "100000",
  network: "base",
  recipient: "0x",
  authorization: { from: "0x", to: "0x", value: "100000", validAfter: "0", validBefore: String(NOW + 120), nonce: "0x" },
  payment: "e30=",
  state: "signed",
  createdAt: NOW,
  attempts: 0,
  nextAt: NOW,
  sessionId: null,
  paymentId: null,
  code: null,
  message: null,
};
const ids = { sessionId: "s", paymentId: "p" };
const OUTCOMES: Record<Outcome["kind"], Outcome> = {
  accepted: { kind: "accepted", ...ids },
  pending: { kind: "pending", ...ids, retryAfterS: 3 },
  refused: { kind: "refused", code: "insufficient_balance", message: "no" },
  closed: { kind: "closed", code: "no_capacity", message: "full", retryAfterS: 30 },
  unknown: { kind: "unknown", retryAfterS: 0 },
};

describe("purchases", () => {
  const becomes: [State, Outcome["kind"], State][] = [
    ["sent", "accepted", "settled"],
    ["sent", "pending", "pending"],
    ["sent", "refused", "refused"],
    ["sent", "closed", "closed"],
    ["sent", "unknown", "unknown"],
    ["pending", "accepted", "settled"],
    ["pending", "refused", "refused"],
    ["pending", "closed", "unknown"],
    ["pending", "unknown", "unknown"],
    ["unknown", "accepted", "settled"],
    ["unknown", "pending", "pending"],
    ["unknown", "closed", "unknown"],
    ["refused", "accepted", "settled"],
    ["closed", "accepted", "settled"],
    ["settled", "unknown", "settled"],
    ["settled", "refused", "settled"],
    ["over", "unknown", "over"],
  ];
  test.each(becomes)("%s, answered by %s, is %s", (state, kind, expected) => {
    expect(next({ ...PURCHASE, state }, OUTCOMES[kind], NOW, NOW).state).toBe(expected);
  });

  test("a refusal is over once no block can take the authorization any more", () => {
    const later = NOW + 120 + 61;
    expect(next({ ...PURCHASE, state: "sent" }, OUTCOMES.refused, later, later).state).toBe("over");
    expect(blocks({ ...PURCHASE, state: "refused" }, NOW + 179, NOW + 179)).toBe(true);
    expect(blocks({ ...PURCHASE, state: "refused" }, later, later)).toBe(false);
    expect(blocks({ ...PURCHASE, state: "closed" }, NOW, NOW)).toBe(true);
  });

  test.each<[string, { now: number; device: number; deviceAt?: number }]>([
    ["the gateway's clock jumps ahead", { now: NOW + 400, device: NOW + 5 }],
    ["this device's clock jumps ahead", { now: NOW + 5, device: NOW + 400 }],
    ["it was signed by a clock far behind the gateway's", { now: NOW + 400, device: NOW + 400 - 86_400, deviceAt: NOW - 86_400 }],
    ["a clock that was ahead is let go by the gateway", { now: NOW + 400, device: NOW + 86_405, deviceAt: NOW + 86_400 }],
  ])("a refused authorization is not let go because %s", (_, { now, device, deviceAt = NOW }) => {
    expect(blocks({ ...PURCHASE, state: "refused", deviceAt }, now, device)).toBe(true);
  });

  test("an unknown outcome blocks for as long as it is unknown, and is asked for again ever more seldom", () => {
    let purchase: Purchase = PURCHASE;
    const waits: number[] = [];
    for (let at = 0; at < 8; at += 1) {
      purchase = next({ ...sent(purchase, NOW), state: "unknown" }, OUTCOMES.unknown, NOW, NOW);
      waits.push(purchase.nextAt - NOW);
      expect(open(purchase) && blocks(purchase, NOW + 1e9, NOW + 1e9)).toBe(true);
    }
    expect(waits).toEqual([2, 4, 8, 16, 20, 20, 20, 20]);
  });

  test.each([
    [202, true, { session_id: "s", payment_id: "p", code: "accepted" }, "accepted"],
    [202, true, { session_id: "s", payment_id: "p", code: "payment_pending" }, "pending"],
    [202, false, { session_id: "s", code: "accepted" }, "unknown"],
    [202, true, {}, "unknown"],
    [402, true, { code: "insufficient" }, "refused"],
    [402, false, { code: "insufficient" }, "unknown"],
    [409, true, { code: "payment_conflict" }, "refused"],
    [404, true, { code: "not_found" }, "refused"],
    [403, true, { code: "not_yours" }, "refused"],
    [404, false, { code: "not_found" }, "unknown"],
    [401, true, { code: "replayed" }, "unknown"],
    [429, true, { code: "rate_limited" }, "unknown"],
    [503, true, { code: "no_capacity" }, "closed"],
    [503, false, { code: "no_capacity" }, "unknown"],
    [503, true, { code: "outcome_unknown" }, "unknown"],
    [500, false, null, "unknown"],
    [401, false, { code: "stale" }, "unknown"],
    [429, false, { code: "rate_limited" }, "unknown"],
  ])("an answer %i (signed: %s) %j is %s", (status, vouched, body, kind) => {
    expect(outcomeOf({ status, signed: vouched, body, retryAfterS: null }).kind).toBe(kind);
  });

  test("what a gateway has refused with a signed 404 blocks no longer than its authorization could be used", () => {
    const gone = outcomeOf({ status: 404, signed: true, body: { code: "not_found" }, retryAfterS: null });
    const refused = next({ ...PURCHASE, state: "unknown" }, gone, NOW + 1, NOW + 1);
    expect(open(refused)).toBe(false);
    expect(blocks(refused, NOW + 180, NOW + 180)).toBe(true);
    expect(blocks(refused, NOW + 181, NOW + 181)).toBe(false);
  });

  test("validity begins well before now, and ends with the offer's time after the confirmation", () => {
    const made = authorizationOf("0xa", { recipient: "0xb", amount: 5n, timeoutS: 120 }, NOW + 0.9, "0xc");
    expect(made).toEqual({ from: "0xa", to: "0xb", value: 5n, validAfter: BigInt(NOW - 600), validBefore: BigInt(NOW + 120), nonce: "0xc" });
  });
});

const SESSION = { status: "active", amount_paid_usd: 2.4, remaining_seconds: 43_200, tier: "lite" } as Session;

describe("money", () => {
  test("amounts are shown to the cent, or as far as they go", () => {
    expect(money(2_400_000n, "en")).toBe("2.40");
    expect(money(1_234_567_890_123n, "en")).toBe("1,234,567.890123");
    expect(money(0n, "de")).toBe("0,00");
    expect(money(-10_000n, "en")).toBe("−0.01");
  });

  test("a price is the tier's, times the hours, in whole units", () => {
    const tier = { tier: "pro", cpu_vcpu: 4, memory_gb: 8, storage_gb: 40, price_usd_per_hour: 0.36 };
    expect(price(tier, 24)).toBe(8_640_000n);
    expect(price(tier, 0.5)).toBe(180_000n);
    expect(units(0.1 + 0.2)).toBe(300_000n);
  });

  test.each([
    ["active", 0, 50, { paid: 2_400_000n, used: 1_200_000n, back: 600_000n }],
    ["active", 3_600, 100, { paid: 2_400_000n, used: 1_300_000n, back: 1_100_000n }],
    ["active", 0, 0, { paid: 2_400_000n, used: 1_200_000n, back: 0n }],
    ["provisioning", 0, 0, { paid: 2_400_000n, used: 0n, back: 2_400_000n }],
    ["stopped", 0, 50, { paid: 2_400_000n, used: 2_400_000n, back: 0n }],
  ] as const)("of a session that is %s, %i s after it was read, at %i %%", (status, since, percent, expected) => {
    expect(moneyLine({ ...SESSION, status }, since, 100_000n, percent)).toEqual(expected);
  });
});

test("sessions that end within a quarter of an hour are named, the first to end first, and none that has ended", () => {
  const at = (id: string, left: number, status = "active", seenAt = NOW) => ({ session: { ...SESSION, session_id: id, status, remaining_seconds: left } as Session, seenAt });
  const seen = [at("long", 3_600), at("soon", 600), at("old", 1_200, "active", NOW - 1_000), at("over", 0, "stopped"), at("begins", 5, "provisioning")];
  expect(endingSoon(seen, NOW)).toEqual([
    { id: "old", left: 200 },
    { id: "soon", left: 600 },
  ]);
});
