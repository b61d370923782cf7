// What a session has cost so far, and what comes back if its owner stops it now.

import type { Session } from "./model";
import { ended, running, units } from "./model";

export interface MoneyLine {
  paid: bigint;
  used: bigint;
  back: bigint;
}

/** Take seconds since the session was read, the price of an hour (atomic units), and the percentage for an early stop. */
export function moneyLine(session: Session, sinceReadS: number, perHour: bigint, earlyStopPercent: number): MoneyLine {
  const paid = units(session.amount_paid_usd);
  if (ended(session)) return { paid, used: paid, back: 0n };
  if (!running(session)) return { paid, used: 0n, back: session.status === "stopping" ? 0n : paid };
  const leftMs = BigInt(Math.max(0, Math.floor((session.remaining_seconds - Math.max(0, sinceReadS)) * 1000)));
  const worth = (perHour * leftMs) / 3_600_000n;
  const rest = worth > paid ? paid : worth;
  return { paid, used: paid - rest, back: (rest * BigInt(Math.round(earlyStopPercent))) / 100n };
}
