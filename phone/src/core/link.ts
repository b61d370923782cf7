// Pay links: an order that the gateway signed, which whoever has the link pays once (engram/payments/pay_links.py).

import { text, unbase64, utf8, type Bytes } from "./bytes";
import { Failure } from "./failures";
import { network, type Network } from "./networks";

const LONGEST = 2_048;
/** How long the gateway makes links good for. */
export const LIFETIME_S = 900;

export interface PayLink {
  id: string;
  tier: string;
  hours: number;
  /** The session that gets more time; null for a new one. */
  sessionId: string | null;
  /** What the gateway calls the network it is paid on; null for one that this app does not know. */
  network: Network | null;
  amount: bigint;
  /** 0x address. */
  recipient: string;
  /** Unix seconds. */
  expiresAt: number;
}

/** Read a link's text. Throws Failure for what the gateway of this key (SS58) did not sign. */
export async function readLink(given: string, gateway: string): Promise<PayLink> {
  const [content, signature, ...more] = given.split(".");
  try {
    if (given.length > LONGEST || !content || !signature || more.length > 0) throw new RangeError("not two parts");
    const plain = unbase64url(content);
    const [{ signed }, { decode }] = await Promise.all([import("./keys"), import("./ss58")]);
    const message = utf8("engram-pay-link-1:" + text(plain));
    if (!signed(decode(gateway), message, unbase64url(signature))) throw new RangeError("not signed");
    return fields(JSON.parse(text(plain)) as Record<string, unknown>);
  } catch {
    throw new Failure("malformed", "bad_link", "this is no pay link of this gateway");
  }
}

/** The time by which a payment of an open link is signed: the gateway's, which says it beside its answer, as far as what
 * it signed allows. Unix seconds. */
export function timeOf(link: PayLink, saidS: number | null, deviceS: number): number {
  const plausible = (at: number): boolean => at <= link.expiresAt + 5 && at >= link.expiresAt - LIFETIME_S - 5;
  return saidS !== null && plausible(saidS) ? saidS : deviceS;
}

function fields(order: Record<string, unknown>): PayLink {
  const { id, tier, hours, session_id, network: on, amount, pay_to, expires_at } = order;
  const whole = Number.isSafeInteger(amount) && Number.isSafeInteger(expires_at);
  if (typeof id !== "string" || typeof tier !== "string" || typeof hours !== "number" || !whole) throw new RangeError("fields");
  if (typeof pay_to !== "string" || !/^[0-9a-f]{40}$/.test(pay_to)) throw new RangeError("recipient");
  return {
    id,
    tier,
    hours,
    sessionId: typeof session_id === "string" ? session_id : null,
    network: network(String(on)) ?? null,
    amount: BigInt(amount as number),
    recipient: "0x" + pay_to,
    expiresAt: expires_at as number,
  };
}

function unbase64url(given: string): Bytes {
  if (!/^[A-Za-z0-9_-]*$/.test(given)) throw new RangeError("not base64url");
  return unbase64(given.replace(/-/g, "+").replace(/_/g, "/"));
}
