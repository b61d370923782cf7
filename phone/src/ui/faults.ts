// What a person reads of something that went wrong: what it was, and what to do next.

import { ClockSet } from "../core/clock";
import { Failure } from "../core/failures";
import { OfferDiffers } from "../core/offer";
import { moment, money } from "../core/format";
import type { Nodes } from "../core/model";
import type { Strings } from "../strings/en";
import { StillOpen, TurnLost } from "./purchases.svelte";
import { texts } from "./words.svelte";

export function said(error: unknown, t: Strings, language: string): string {
  if (error instanceof StillOpen) return t.pay.blocked;
  if (error instanceof TurnLost) return t.pay.turnLost;
  if (error instanceof ClockSet) return t.pay.clockSet;
  if (error instanceof OfferDiffers) {
    const shown = (text: string): string => (error.field === "amount" && /^\d+$/.test(text) ? "$" + money(BigInt(text), language) : text);
    return t.pay.differs(t.pay.fields[error.field] ?? error.field, shown(error.expected), shown(error.found));
  }
  if (error instanceof Error && t.pay.wallet[error.message] !== undefined) return t.pay.wallet[error.message] as string;
  if (!(error instanceof Failure)) return t.errors.other;
  if (error.kind !== "refused") return error.code === "bad_link" ? String(t.errors.bad_link) : t.errors[error.kind];
  if (error.code === "stale" || error.code === "future") return String(t.errors.clock);
  const known = t.errors[error.code];
  if (typeof known === "string") return known;
  if (error.status === 429) return t.errors.busy;
  return error.message ? t.errors.refused(error.message) : t.errors.other;
}

/** That every node is taken, and when one comes free. */
export function soldOut(nodes: Nodes | null): string {
  const { t, language } = texts;
  return nodes?.free_at ? `${t.nodes.soldOut} ${t.nodes.freeAbout(moment(nodes.free_at, language))}` : t.nodes.soldOut;
}
