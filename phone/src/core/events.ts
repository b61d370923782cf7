// A session's events: server-sent events read by fetch, so that the request is signed, with reconnection.

import type { Gateway } from "./gateway";
import type { Signer } from "./keys";

export interface SessionEvent {
  name: string;
  data: unknown;
}

const SILENCE_MS = 40_000; // the gateway sends a heartbeat every 15 s
const LONGEST_EVENT = 262_144;
const PAUSES_MS = [500, 1_000, 2_000, 5_000, 10_000, 20_000];

/** Parses the lines of a stream; a class, since an event may come in parts. */
export class EventParser {
  private rest = "";
  private data: string[] = [];
  private name = "";
  private held = 0;
  lastId = "";

  /** Forget the part of an event that a lost stream has left. */
  begin(): void {
    this.rest = this.name = "";
    this.data = [];
    this.held = 0;
  }

  /** Return the events that these characters complete. Throws RangeError for an event without end. */
  feed(characters: string): SessionEvent[] {
    this.rest += characters;
    if (this.rest.length > LONGEST_EVENT) throw new RangeError("an event is too long");
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() as string;
    const found: SessionEvent[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.data.length > 0) found.push({ name: this.name || "message", data: json(this.data.join("\n")) });
        this.data = [];
        this.name = "";
        this.held = 0;
      } else if (!line.startsWith(":")) {
        this.held += line.length;
        if (this.held > LONGEST_EVENT) throw new RangeError("an event is too long");
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") this.data.push(value);
        else if (field === "event") this.name = value;
        else if (field === "id") this.lastId = value;
      }
    }
    return found;
  }
}

function json(given: string): unknown {
  try {
    return JSON.parse(given);
  } catch {
    return null;
  }
}

export interface Listener {
  event(event: SessionEvent): void;
  /** Whether the stream is open now. */
  live(is: boolean): void;
}

/** Follow a session until it is over or `signal` is aborted; a lost stream is opened again. `after` is the id of the event
 * from which on to be told: "0" for all of its history. */
export async function follow(gateway: Gateway, signer: Signer, sessionId: string, listener: Listener, signal: AbortSignal, after = ""): Promise<void> {
  const path = `/sessions/${sessionId}/events`;
  const parser = new EventParser();
  parser.lastId = after;
  for (let lost = 0; !signal.aborted; lost += 1) {
    const connection = new AbortController();
    const end = () => connection.abort();
    signal.addEventListener("abort", end);
    let silence: ReturnType<typeof setTimeout> | undefined;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(end, SILENCE_MS);
    };
    try {
      heard();
      const resume: Record<string, string> = parser.lastId ? { "Last-Event-ID": parser.lastId } : {};
      const response = await gateway.stream(signer, "GET", path, undefined, connection.signal, resume);
      if (response.status === 204 || response.status === 404 || response.status === 403) return;
      if (response.status === 200 && response.body) {
        listener.live(true);
        parser.begin();
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          heard();
          lost = 0;
          for (const event of parser.feed(value)) {
            if (event.name === "end") {
              listener.event(event);
              return;
            }
            listener.event(event);
          }
        }
      }
    } catch {
      // A broken stream says nothing about the session: it is opened again.
    } finally {
      clearTimeout(silence);
      connection.abort();
      signal.removeEventListener("abort", end);
      listener.live(false);
    }
    await pause(PAUSES_MS[Math.min(lost, PAUSES_MS.length - 1)] as number, signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
