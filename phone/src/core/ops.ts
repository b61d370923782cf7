// What the operator's page makes of /status and /ready: what needs a hand, and the tree by its levels.

export interface TreeNode {
  path: string;
  kind: string;
  state: string;
  restarts: number;
  last_error: string | null;
  mailbox_depth: number | null;
  mailbox_bound: number | null;
}

export interface MoneyToday {
  since: number;
  in_usd: number;
  out_usd: number;
  refunds_due: number;
  refunds_due_usd: number;
}

export interface SystemStatus {
  version: string;
  environment: string;
  uptime_s: number;
  selling: boolean;
  sessions: Record<string, number>;
  payments: Record<string, number>;
  quarantined: string[];
  event_streams: number;
  ages_s: Record<string, number>;
  tree: TreeNode[];
  money: MoneyToday | null;
  extra: Record<string, Record<string, unknown>>;
}

export interface Readiness {
  ready: boolean;
  checks: Record<string, string>;
  cannot_sell?: { code: string; message: string }[];
}

/** What was read at once of both, or why it could not be. */
export type Reading = { status: SystemStatus; ready: Readiness } | { wrong: string };

const PATIENCE_MS = 4_000;

/** Read /status and /ready. Never throws: a gateway that hangs or answers an error is said to. */
export async function look(fetch: (path: string, init: RequestInit) => Promise<Response>, patienceMs = PATIENCE_MS): Promise<Reading> {
  try {
    const signal = AbortSignal.timeout(patienceMs);
    const [status, ready] = await Promise.all(["/status", "/ready"].map((path) => fetch(path, { signal, cache: "no-store" })));
    const [found, stands] = (await Promise.all([status!.json(), ready!.json()])) as [SystemStatus & { error?: unknown }, Readiness];
    // /ready answers 503 where the gateway is not; what it says then is what is wanted.
    if (!status!.ok || !Array.isArray(found?.tree)) return { wrong: `/status answers ${status!.status}${typeof found?.error === "string" ? `: ${found.error.slice(0, 200)}` : ""}` };
    return { status: found, ready: typeof stands?.checks === "object" && stands.checks !== null ? stands : { ready: false, checks: { ready: `answers ${ready!.status}` } } };
  } catch (error) {
    return { wrong: (error as Error).name === "TimeoutError" ? `no answer within ${patienceMs / 1_000} s` : "no answer" };
  }
}

const OLD_S = 120;

/** Every thing that needs a hand, the worst first; empty when nothing does. */
export function needsAHand(status: SystemStatus, ready: Readiness | null): string[] {
  const found: string[] = [];
  for (const [name, wrong] of Object.entries(ready?.checks ?? {})) if (wrong) found.push(`${name}: ${wrong}`);
  for (const id of status.quarantined) found.push(`quarantined: ${id} (engram quarantine release ${id})`);
  for (const node of status.tree) {
    // A part that had nothing to do here, or has done it, has stopped without an error.
    const well = ["running", "starting"].includes(node.state) || (node.state === "stopped" && !node.last_error);
    if (!well) found.push(`${node.path} is ${node.state}${node.last_error ? `: ${node.last_error}` : ""}`);
    if (node.mailbox_depth !== null && node.mailbox_bound !== null && node.mailbox_depth >= node.mailbox_bound) found.push(`${node.path}: its mailbox is full`);
  }
  if (status.payments.unknown) found.push(`${status.payments.unknown} payments of unknown outcome`);
  if (status.money && status.money.refunds_due > 0) found.push(`${status.money.refunds_due} refunds are due, $${status.money.refunds_due_usd}`);
  for (const [name, age] of Object.entries(status.ages_s)) if (age > OLD_S) found.push(`${name} is ${Math.round(age)} s old`);
  const dead = status.extra.relay?.dead;
  if (typeof dead === "number" && dead > 0) found.push(`${dead} payloads of the relay were given up`);
  if (!status.selling) found.push("selling is switched off (engram selling on)");
  return found;
}

/** How deep a node stands in the tree, and its own name. */
export function placeOf(node: TreeNode): { depth: number; name: string } {
  const parts = node.path.split("/");
  return { depth: parts.length - 1, name: parts.at(-1) as string };
}
