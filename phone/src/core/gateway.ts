// Requests to the gateway: signed by the identity, and believed only when the gateway's own key signed the answer.
//
// A 402 and every 2xx answer to a signed request must be signed. Other refusals may come unsigned (a front that is
// overloaded cannot sign); they can say "not now", and nothing that costs money.

import { concat, hex, sha256, text, unhex, utf8, type Bytes } from "./bytes";
import type { Clock } from "./clock";
import { Failure } from "./failures";
import type { Signer } from "./keys";

export const MOST_BYTES = 1_000_000;
const TIMEOUT_MS = 15_000;

export interface Answer {
  status: number;
  body: unknown;
  retryAfterS: number | null;
  /** Whether the gateway's known key signed it. */
  signed: boolean;
  /** What its Date header says (unix seconds), which no signature covers. */
  dateS: number | null;
  /** What others can check of a signed answer later, without the gateway. */
  proof: Proof | null;
}

/** A signed answer as it came: the signature covers status, the request's timestamp, and the body's SHA-256. */
export interface Proof {
  path: string;
  status: number;
  timestamp: string;
  body: string;
  signature: string;
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export class Gateway {
  /** The key that must sign answers: the one seen first (SS58); null until it is known. */
  hotkey: string | null = null;

  constructor(
    readonly origin: string,
    readonly clock: Clock,
    private readonly fetch: Fetch = (url, init) => globalThis.fetch(url, init),
  ) {}

  /** Get something that needs no signature. Throws Failure. */
  async open<T>(path: string): Promise<T> {
    const response = await this.send(path, { method: "GET" });
    const body = parsed(await bounded(response));
    demandGateway(response.status, body);
    if (response.status !== 200) throw refusal(response.status, body, retryAfter(response));
    return body as T;
  }

  /** Send a signed request and return the answer, whatever its status. Throws Failure for what cannot be believed. */
  async ask(signer: Signer, method: string, path: string, body?: string, extra: Record<string, string> = {}): Promise<Answer> {
    const first = await this.once(signer, method, path, body, extra);
    const skew = (first.body as { clock_skew_ms?: unknown } | null)?.clock_skew_ms;
    // What is signed for a payment follows this clock, so that only the gateway itself may set it.
    const mended = first.status === 401 && first.signed && typeof skew === "number" && this.clock.mend(skew);
    const answer = mended ? await this.once(signer, method, path, body, extra) : first;
    if (answer.signed && answer.status !== 401) this.clock.compared();
    return answer;
  }

  /** Post without an identity, for what whoever has a link may do; the answer is signed all the same. Throws Failure. */
  async openly(path: string, body: string, extra: Record<string, string> = {}): Promise<Answer> {
    return this.exchange("POST", path, body, { "X-Timestamp": String(this.clock.nowMs()), ...extra });
  }

  /** As `ask`, for a status of 2xx alone. */
  async get<T>(signer: Signer, method: string, path: string, body?: string): Promise<T> {
    const answer = await this.ask(signer, method, path, body);
    if (answer.status >= 300) throw refusal(answer.status, answer.body, answer.retryAfterS);
    return answer.body as T;
  }

  /** The headers that sign a request; the query is not covered. */
  async headers(signer: Signer, method: string, path: string, body: string | undefined): Promise<Record<string, string>> {
    const at = this.clock.nowMs();
    const plain = path.split("?", 1)[0] as string;
    const digest = hex(await sha256(utf8(body ?? "")));
    const message = `engram-cloud:${method}:${plain}:${at}:${digest}`;
    return {
      "X-Hotkey": signer.address,
      "X-Timestamp": String(at),
      "X-Sig": hex(signer.sign(utf8(message))),
      "X-Sig-Version": "2",
    };
  }

  /** Open a signed request whose answer is read as it comes. The caller reads and closes it. Throws Failure. */
  async stream(signer: Signer, method: string, path: string, body: string | undefined, signal: AbortSignal, extra: Record<string, string> = {}): Promise<Response> {
    const headers = { ...(await this.headers(signer, method, path, body)), ...extra, ...typed(body) };
    try {
      return await this.fetch(this.origin + path, { method, headers, ...given(body), signal, ...PLAIN });
    } catch (error) {
      throw unreachable(error);
    }
  }

  private async once(signer: Signer, method: string, path: string, body: string | undefined, extra: Record<string, string>): Promise<Answer> {
    return this.exchange(method, path, body, { ...(await this.headers(signer, method, path, body)), ...extra });
  }

  private async exchange(method: string, path: string, body: string | undefined, headers: Record<string, string>): Promise<Answer> {
    if (this.hotkey === null) throw new Failure("unsigned", "no_gateway_key", "the gateway's key is not known yet");
    const response = await this.send(path, { method, headers: { ...headers, ...typed(body) }, ...given(body) });
    const content = await bounded(response);
    const vouched = await this.vouched(response, headers["X-Timestamp"] as string, content);
    if (!vouched) demandGateway(response.status, parsed(content));
    if (!vouched && (response.status < 400 || response.status === 402)) {
      throw new Failure("unsigned", "unsigned", "the answer is not signed by the gateway", { status: response.status });
    }
    const signature = response.headers.get("X-Gateway-Sig") ?? "";
    const timestamp = headers["X-Timestamp"] as string;
    const proof = vouched ? { path, status: response.status, timestamp, body: text(content), signature } : null;
    return { status: response.status, body: parsed(content), retryAfterS: retryAfter(response), signed: vouched, dateS: dateOf(response), proof };
  }

  /** Whether the answer is signed. Throws Failure when it is signed by another key, or the signature is wrong. */
  private async vouched(response: Response, timestamp: string, content: Bytes): Promise<boolean> {
    const by = response.headers.get("X-Gateway-Hotkey");
    const signature = response.headers.get("X-Gateway-Sig");
    if (!by || !signature) return false;
    const key = this.hotkey as string;
    if (by !== key) throw new Failure("impostor", "other_gateway", `answered by ${by}, known is ${key}`);
    // Curves are loaded with the first signed answer: the first screen shows without them.
    const [{ signed }, { decode }] = await Promise.all([import("./keys"), import("./ss58")]);
    const message = `engram-gateway:${response.status}:${timestamp}:${hex(await sha256(content))}`;
    if (!/^[0-9a-fA-F]{128}$/.test(signature) || !signed(decode(key), utf8(message), unhex(signature))) {
      throw new Failure("impostor", "bad_signature", "the answer's signature does not hold");
    }
    return true;
  }

  private async send(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.fetch(this.origin + path, { ...init, ...PLAIN, signal: AbortSignal.timeout(TIMEOUT_MS) });
    } catch (error) {
      throw unreachable(error);
    }
  }
}

const PLAIN: RequestInit = { credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" };

function typed(body: string | undefined): Record<string, string> {
  return body === undefined ? {} : { "Content-Type": "application/json" };
}

function given(body: string | undefined): RequestInit {
  return body === undefined ? {} : { body };
}

function unreachable(error: unknown): Failure {
  return new Failure("unreachable", "unreachable", error instanceof Error ? error.message : "no answer");
}

/** Throw Failure for what a front says in the place of a gateway that is away: the gateway's errors have a code. */
function demandGateway(status: number, body: unknown): void {
  if (status >= 500 && typeof (body as { code?: unknown } | null)?.code !== "string") {
    throw new Failure("unreachable", `http_${status}`, "something before the gateway answers in its place", { status });
  }
}

/** The failure that a refusal of the gateway is. */
export function refusal(status: number, body: unknown, retryAfterS: number | null = null): Failure {
  const { code, error, detail } = (body ?? {}) as { code?: unknown; error?: unknown; detail?: unknown };
  const said = [error, detail].filter((each) => typeof each === "string").join(" ");
  const name = typeof code === "string" ? code : `http_${status}`;
  return new Failure("refused", name.slice(0, 60), said.slice(0, 300), { status, retryAfterS, body });
}

function dateOf(response: Response): number | null {
  const at = Date.parse(response.headers.get("Date") ?? "");
  return Number.isFinite(at) ? at / 1000 : null;
}

function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 3600) : null;
}

function parsed(content: Uint8Array): unknown {
  if (content.length === 0) return null;
  try {
    return JSON.parse(text(content));
  } catch {
    return null;
  }
}

/** The whole body, up to `most` bytes. Throws Failure for a longer one, or one that breaks off. */
export async function bounded(response: Response, most = MOST_BYTES): Promise<Bytes> {
  if (!response.body) return new Uint8Array();
  const reader = response.body.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return concat(...parts);
      size += value.length;
      if (size > most) {
        await reader.cancel();
        throw new Failure("malformed", "too_large", "the answer is too large");
      }
      parts.push(value);
    }
  } catch (error) {
    throw error instanceof Failure ? error : unreachable(error);
  }
}
