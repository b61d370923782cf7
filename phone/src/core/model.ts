// What the gateway answers, as far as the app reads it. Everything in here was written by somebody else.

export interface Identity {
  hotkey: string;
  environment: string;
  version: string;
}

export interface Tier {
  tier: string;
  cpu_vcpu: number;
  memory_gb: number;
  storage_gb: number;
  price_usd_per_hour: number;
}

export interface Nodes {
  available: boolean;
  cannot_sell?: { code: string; message: string }[];
  note?: string;
  /** When the next place comes free (unix seconds), where all are taken and nobody adds time. */
  free_at?: number;
  /** How long starts take at this gateway, from the payment to the node's first answer; and when one is given up. */
  usual_start_s?: number;
  longest_start_s?: number;
}

export interface RefundTerms {
  early_stop_percent?: number;
  not_delivered_percent?: number;
  text?: string;
}

export interface Terms {
  terms_url: string;
  min_hours: number;
  max_hours: number;
  refund_terms: RefundTerms;
  early_stop_refund_percent: number;
}

export type SessionStatus =
  | "payment_pending"
  | "provisioning"
  | "active"
  | "degraded"
  | "stopping"
  | "stopped"
  | "expired"
  | "failed";

export interface Stats {
  vectors?: number | null;
  proof_rate?: number | null;
  p50_latency_ms?: number | null;
  queries_today?: number | null;
  block?: number | null;
}

export interface Session {
  session_id: string;
  status: SessionStatus;
  created_at: number;
  expires_at: number;
  node_endpoint: string | null;
  node_hotkey: string | null;
  payment_tx: string | null;
  payment_id: string;
  network: string;
  amount_paid_usd: number;
  stats: Stats;
  stats_age_s: number | null;
  error: string | null;
  end_reason: string | null;
  remaining_seconds: number;
  tier: string;
  /** When the node lost its machine and began again elsewhere, empty. */
  emptied_at: number | null;
  /** Of gateways that say it. */
  memory?: "kept" | "lost" | "restored";
}

export interface Bought extends Session {
  payment_status: string;
  code: string;
}

export interface Refund {
  number: number;
  status: string;
  amount_usd: number;
  reason: string;
  transaction: string | null;
}

export interface Payment {
  payment_id: string;
  session_id: string;
  kind: string;
  status: string;
  amount_usd: number;
  network: string;
  transaction: string | null;
  reason: string | null;
  created_at: number;
  settled_at: number | null;
  refunds: Refund[];
}

export interface Spending {
  address: string;
  network: string;
  amount: string | null;
  faucet: boolean;
}

export interface Neuron {
  uid: number;
  incentive?: number;
}

export interface Metagraph {
  network: string;
  block: number;
  netuid: number;
  neurons?: Neuron[];
}

const ENDED = new Set<SessionStatus>(["stopped", "expired", "failed"]);

export function ended(session: Session): boolean {
  return ENDED.has(session.status);
}

export function running(session: Session): boolean {
  return session.status === "active" || session.status === "degraded";
}

/** Seconds before its end from which a session is said to end soon. */
export const ENDS_SOON_S = 900;

/** Seconds that a session has left at `now`, when it was read at `seenAt` (unix seconds both). */
export function leftS(session: Session, seenAt: number, now: number): number {
  return Math.max(0, session.remaining_seconds - Math.max(0, now - seenAt));
}

/** Sessions that end soon, and by which time (seconds left), the first to end first. */
export function endingSoon(seen: readonly { session: Session; seenAt: number }[], now: number): { id: string; left: number }[] {
  return seen
    .filter(({ session }) => running(session))
    .map(({ session, seenAt }) => ({ id: session.session_id, left: leftS(session, seenAt, now) }))
    .filter(({ left }) => left < ENDS_SOON_S)
    .sort((a, b) => a.left - b.left);
}

const MICROS = 1_000_000;

/** Dollars in atomic units; what has more than 6 decimals is rounded. */
export function units(usd: number): bigint {
  return BigInt(Math.round(usd * MICROS));
}

/** What an order costs by the tier's price: what the screen shows, and what the offer must come to. */
export function price(tier: Tier, hours: number): bigint {
  return BigInt(Math.round(Math.round(tier.price_usd_per_hour * MICROS) * hours));
}
