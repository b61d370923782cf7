// Checks an offer (a 402) against what the screen showed. What is signed is what was shown, or nothing is.
//
// Read from the answer's body, which the gateway's signature covers; the header of the same name is not.

import { network, type Network } from "./networks";

export const LONGEST_S = 600;

export interface Shown {
  /** The network's name as the screen showed it. */
  network: string;
  /** Atomic units. */
  amount: bigint;
  /** 0x address, where the screen showed one already (the second reading of an offer). */
  recipient?: string;
}

/** An offer that may be paid. */
export interface Offer {
  network: Network;
  amount: bigint;
  recipient: string;
  timeoutS: number;
}

export type Field = "accepts" | "scheme" | "network" | "amount" | "asset" | "recipient" | "token" | "timeout";

/** The offer is not what the screen showed: which field, what it should be and what it is. */
export class OfferDiffers extends Error {
  constructor(
    readonly field: Field,
    readonly expected: string,
    readonly found: string,
  ) {
    super(`${field}: expected ${expected}, offered ${found}`);
  }
}

/** Return the one offer that fits what was shown. Throws OfferDiffers, which names the field. */
export function check(body: unknown, shown: Shown): Offer {
  const accepts = (body as { accepts?: unknown } | null)?.accepts;
  if (!Array.isArray(accepts) || accepts.length === 0 || accepts.length > 20) {
    throw new OfferDiffers("accepts", "an offer", Array.isArray(accepts) ? String(accepts.length) : "none");
  }
  let differs: OfferDiffers | null = null;
  for (const each of accepts) {
    try {
      return checked(each as Record<string, unknown>, shown);
    } catch (error) {
      if (!(error instanceof OfferDiffers)) throw error;
      // The difference of the offer that comes nearest is the one that says something.
      if (differs === null || RANK.indexOf(error.field) > RANK.indexOf(differs.field)) differs = error;
    }
  }
  throw differs as OfferDiffers;
}

const RANK: readonly Field[] = ["accepts", "scheme", "network", "asset", "token", "amount", "recipient", "timeout"];

function checked(offer: Record<string, unknown> | null, shown: Shown): Offer {
  if (typeof offer !== "object" || offer === null) throw new OfferDiffers("accepts", "an offer", "something else");
  const expect = (field: Field, expected: string, found: unknown): void => {
    if (String(found).toLowerCase() !== expected.toLowerCase()) throw new OfferDiffers(field, expected, brief(found));
  };
  const known = network(shown.network);
  if (known === undefined) throw new OfferDiffers("network", "one that this app pays on", brief(shown.network));
  expect("scheme", "exact", offer.scheme);
  if (network(brief(offer.network)) !== known) throw new OfferDiffers("network", known.name, brief(offer.network));
  expect("asset", known.asset, offer.asset);
  const extra = (offer.extra ?? {}) as Record<string, unknown>;
  if (extra.name !== known.assetName) throw new OfferDiffers("token", known.assetName, brief(extra.name));
  if (extra.version !== known.assetVersion) throw new OfferDiffers("token", known.assetVersion, brief(extra.version));
  expect("amount", shown.amount.toString(), offer.maxAmountRequired);
  if (!/^0x[0-9a-fA-F]{40}$/.test(brief(offer.payTo))) throw new OfferDiffers("recipient", "an address", brief(offer.payTo));
  if (shown.recipient !== undefined) expect("recipient", shown.recipient, offer.payTo);
  const timeoutS = offer.maxTimeoutSeconds;
  if (typeof timeoutS !== "number" || !Number.isInteger(timeoutS) || timeoutS < 30 || timeoutS > LONGEST_S) {
    throw new OfferDiffers("timeout", `30 to ${LONGEST_S} s`, brief(timeoutS));
  }
  return { network: known, amount: shown.amount, recipient: offer.payTo as string, timeoutS };
}

function brief(value: unknown): string {
  return typeof value === "string" ? value.slice(0, 80) : JSON.stringify(value)?.slice(0, 80) ?? "nothing";
}
