// A purchase, from the signature to its known outcome. Pure: no I/O, no clock, no randomness.
//
//   signed  -> sent                       written down before the first byte leaves; read back later it is unknown
//   sent    -> settled | pending | refused | unknown | closed
//   pending -> settled | refused          "payment sent, waiting for its confirmation"
//   unknown -> settled | pending | refused, never "failed"
//   refused -> sent (again, the same authorization) | over
//   closed  -> sent (again)               nothing was taken: no room, not now
//
// There is one authorization at a time. While it could still be used no other is signed: `blocks` says until when.

import type { Refund } from "./model";
import type { Authorization } from "./spending";

export type State = "signed" | "sent" | "pending" | "unknown" | "settled" | "refused" | "closed" | "over";

export interface Purchase {
  id: string;
  /** The SS58 address of the identity that buys. */
  buyer: string;
  path: string;
  /** The body as it is sent, byte for byte: the gateway knows the purchase by it. */
  body: string;
  tier: string;
  hours: number;
  amount: string;
  network: string;
  recipient: string;
  authorization: { [K in keyof Authorization]: string };
  /** The PAYMENT-SIGNATURE header. */
  payment: string;
  state: State;
  createdAt: number;
  /** What this device's own clock said then. */
  deviceAt?: number;
  attempts: number;
  /** Unix seconds; when to send it again. */
  nextAt: number;
  sessionId: string | null;
  paymentId: string | null;
  code: string | null;
  message: string | null;
}

export type Outcome =
  | { kind: "accepted"; sessionId: string; paymentId: string }
  | { kind: "pending"; sessionId: string; paymentId: string; retryAfterS: number }
  | { kind: "refused"; code: string; message: string }
  | { kind: "closed"; code: string; message: string; retryAfterS: number }
  | { kind: "unknown"; retryAfterS: number };

/** Seconds beyond an authorization's end after which no block can take it any more. */
export const MARGIN_S = 60;
const LONGEST_WAIT_S = 20;

/** A purchase that is taken up again: one that was on its way when the app ended may have arrived. */
export function resumed(purchase: Purchase): Purchase {
  return purchase.state === "sent" ? { ...purchase, state: "unknown" } : purchase;
}

export function sent(purchase: Purchase, now: number): Purchase {
  return { ...purchase, state: "sent", attempts: purchase.attempts + 1, nextAt: now + backoff(purchase.attempts + 1) };
}

/** What an answer, or its absence, makes of a purchase. */
export function next(purchase: Purchase, outcome: Outcome, now: number, device: number): Purchase {
  if (purchase.state === "settled" || purchase.state === "over") return purchase;
  switch (outcome.kind) {
    case "accepted":
      return { ...purchase, state: "settled", sessionId: outcome.sessionId, paymentId: outcome.paymentId, code: null, message: null };
    case "pending":
      return {
        ...purchase,
        state: "pending",
        sessionId: outcome.sessionId,
        paymentId: outcome.paymentId,
        nextAt: now + Math.min(outcome.retryAfterS, LONGEST_WAIT_S),
        code: "payment_pending",
        message: null,
      };
    case "refused": {
      const state = blocks({ ...purchase, state: "refused" }, now, device) ? "refused" : "over";
      return { ...purchase, state, code: outcome.code, message: outcome.message };
    }
    case "closed": {
      // Once it may have been taken, "not now" says nothing about the payment.
      const state = purchase.state === "pending" || purchase.state === "unknown" ? "unknown" : "closed";
      return { ...purchase, state, code: outcome.code, message: outcome.message, nextAt: now + outcome.retryAfterS };
    }
    case "unknown":
      return { ...purchase, state: "unknown", nextAt: now + Math.max(outcome.retryAfterS, backoff(purchase.attempts)) };
  }
}

/** Whether the outcome is still to be looked for. */
export function open(purchase: Purchase): boolean {
  return purchase.state === "signed" || purchase.state === "sent" || purchase.state === "pending" || purchase.state === "unknown";
}

/** Whether no other authorization may be signed yet. `now` follows the gateway's clock, and a gateway may lie about it:
 * an authorization is over only when `device`, the clock of this device, has seen it end as well, and its time pass. */
export function blocks(purchase: Purchase, now: number, device: number): boolean {
  if (open(purchase)) return true;
  if (purchase.state !== "refused" && purchase.state !== "closed") return false;
  const end = Number(purchase.authorization.validBefore) + MARGIN_S;
  const passed = purchase.deviceAt === undefined ? Infinity : device - purchase.deviceAt;
  return now <= end || device <= end || passed <= end - purchase.createdAt;
}

/** Read an answer of the gateway. `signed` is whether its key vouches for it. */
export function outcomeOf(answer: { status: number; body: unknown; signed: boolean; retryAfterS: number | null }): Outcome {
  const body = (answer.body ?? {}) as Record<string, unknown>;
  const code = typeof body.code === "string" ? body.code : `http_${answer.status}`;
  const message = typeof body.error === "string" ? body.error.slice(0, 300) : "";
  const ids = { sessionId: String(body.session_id ?? ""), paymentId: String(body.payment_id ?? "") };
  if (answer.status === 202 && answer.signed && ids.paymentId) {
    if (code === "payment_pending") return { kind: "pending", ...ids, retryAfterS: answer.retryAfterS ?? 3 };
    return { kind: "accepted", ...ids };
  }
  // What the gateway itself refuses is over once the authorization is (`next`); a 401 or 429 is about the request alone.
  if (answer.signed && answer.status >= 400 && answer.status < 500 && !UNDECIDED.has(answer.status)) {
    return { kind: "refused", code, message };
  }
  if (answer.signed && (answer.status === 429 || answer.status === 503) && CLOSED.has(code)) {
    return { kind: "closed", code, message, retryAfterS: answer.retryAfterS ?? 10 };
  }
  return { kind: "unknown", retryAfterS: answer.retryAfterS ?? 0 };
}

/** The refunds that an answer about a payment tells of. */
export function refundsOf(body: unknown): Refund[] {
  const { refunds } = (body ?? {}) as { refunds?: unknown };
  return Array.isArray(refunds) ? (refunds as Refund[]).filter((each) => typeof each?.amount_usd === "number") : [];
}

/** Statuses that say something of the request, and nothing of the payment. */
const UNDECIDED = new Set([401, 408, 425, 429]);

/** Codes by which the gateway says that it has not begun with the payment. */
const CLOSED = new Set([
  "no_capacity",
  "session_limit",
  "too_many_open_payments",
  "not_selling",
  "facilitator_unavailable",
  "facilitator_unsupported",
  "backends_silent",
  "disk_full",
  "chain_unknown",
]);

function backoff(attempts: number): number {
  return Math.min(LONGEST_WAIT_S, 2 ** Math.min(attempts, 5));
}

/** What an authorization says, for an offer confirmed at `now` (unix seconds). */
export function authorizationOf(
  payer: string,
  offer: { recipient: string; amount: bigint; timeoutS: number },
  now: number,
  nonce: string,
): Authorization {
  const at = BigInt(Math.floor(now));
  // A block's time may be behind every clock: what is valid from now on would not be yet.
  return { from: payer, to: offer.recipient, value: offer.amount, validAfter: at - 600n, validBefore: at + BigInt(offer.timeoutS), nonce };
}
