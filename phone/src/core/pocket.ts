// How much money a spending key in a browser should hold, and when the app stops inviting more.

import type { Network } from "./networks";

/** Atomic units above which it is more than pocket money. */
export const MUCH = 50_000_000n;
/** The most that is taken before the words were checked: a lost phone would lose it. */
export const UNCHECKED = 5_000_000n;

export type Pocket =
  | "fine"
  | "unchecked" // no more is asked for until the words were checked: the address is not shown
  | "much"; // the person is told to move some

/** Judge what a key owns (atomic units; null: not known). Play money is never too much. */
export function pocket(owned: bigint | null, kind: Network["kind"] | undefined, checked: boolean): Pocket {
  if (owned === null || kind === undefined || kind === "play") return "fine";
  if (!checked && owned >= UNCHECKED) return "unchecked";
  return owned > MUCH ? "much" : "fine";
}
