import { describe, expect, test } from "vitest";

import { hex, sha256, utf8 } from "../src/core/bytes";
import { Clock, MOST_MS } from "../src/core/clock";
import { EventParser, follow } from "../src/core/events";
import { Failure } from "../src/core/failures";
import { duration, short } from "../src/core/format";
import { Gateway, MOST_BYTES, type Fetch } from "../src/core/gateway";
import { signerOf, type Signer } from "../src/core/keys";
import { canonical, type Json } from "../src/core/node";
import { holds, type ShownProof } from "../src/core/proof";
import { sealByDevice, sealByPassphrase, unseal, WrongKey, type Secret } from "../src/core/vault";
import { entropyOf, make } from "../src/core/words";
import { de } from "../src/strings/de";
import { en } from "../src/strings/en";
import vectors from "./vectors.json";

/** A gateway that answers as `reply` says, signing with `key`. */
async function answering(
  key: Signer,
  reply: (init: RequestInit, timestamp: string) => { status: number; body: string; unsigned?: boolean; tamper?: boolean },
): Promise<{ gateway: Gateway; sent: RequestInit[] }> {
  const sent: RequestInit[] = [];
  const fetch: Fetch = async (_url, init) => {
    sent.push(init);
    const timestamp = (init.headers as Record<string, string>)["X-Timestamp"] ?? "";
    const { status, body, unsigned = false, tamper = false } = reply(init, timestamp);
    const message = `engram-gateway:${status}:${timestamp}:${hex(await sha256(utf8(body)))}`;
    const headers: Record<string, string> = unsigned
      ? {}
      : { "X-Gateway-Hotkey": key.address, "X-Gateway-Sig": hex(key.sign(utf8(message))) };
    return new Response(tamper ? body + " " : body, { status, headers });
  };
  const gateway = new Gateway("https://gateway.example", new Clock(() => 1_700_000_000_000), fetch);
  gateway.hotkey = key.address;
  return { gateway, sent };
}

describe("answers of the gateway", async () => {
  const [phone, key, stranger] = await Promise.all([signerOf(entropyOf(make())), signerOf(entropyOf(make())), signerOf(entropyOf(make()))]);

  test("a signed one is believed", async () => {
    const { gateway, sent } = await answering(key, () => ({ status: 200, body: '{"a":1}' }));
    expect(await gateway.ask(phone, "GET", "/sessions/x?y=1")).toMatchObject({ status: 200, body: { a: 1 }, signed: true });
    expect(sent[0]!.headers).toMatchObject({ "X-Hotkey": phone.address, "X-Timestamp": "1700000000000", "X-Sig-Version": "2" });
  });

  test.each([
    ["an unsigned 200", { status: 200, body: "{}", unsigned: true }, "unsigned"],
    ["an unsigned 402", { status: 402, body: "{}", unsigned: true }, "unsigned"],
    ["a changed body", { status: 200, body: "{}", tamper: true }, "impostor"],
    ["a huge body", { status: 200, body: "x".repeat(MOST_BYTES + 1) }, "malformed"],
  ])("%s is not", async (_, reply, kind) => {
    const { gateway } = await answering(key, () => reply);
    await expect(gateway.ask(phone, "GET", "/sessions/x")).rejects.toMatchObject({ kind });
  });

  test("one of another key is an impostor's", async () => {
    const { gateway } = await answering(stranger, () => ({ status: 200, body: "{}" }));
    gateway.hotkey = key.address;
    await expect(gateway.ask(phone, "GET", "/x")).rejects.toMatchObject({ kind: "impostor", code: "other_gateway" });
  });

  test("an unsigned refusal is heard, and vouches for nothing", async () => {
    const { gateway } = await answering(key, () => ({ status: 503, body: '{"code":"busy"}', unsigned: true }));
    expect(await gateway.ask(phone, "POST", "/sessions", "{}")).toMatchObject({ status: 503, signed: false });
  });

  test("an unsigned word about the clock mends nothing", async () => {
    const { gateway, sent } = await answering(key, () => ({ status: 401, body: '{"code":"stale","clock_skew_ms":-420000}', unsigned: true }));
    expect(await gateway.ask(phone, "GET", "/x")).toMatchObject({ status: 401, signed: false });
    expect(sent).toHaveLength(1);
    expect(gateway.clock.offsetMs).toBe(0);
  });

  test("a clock that is off is mended by what the gateway says, once", async () => {
    let calls = 0;
    const { gateway, sent } = await answering(key, () => {
      calls += 1;
      return calls === 1 ? { status: 401, body: '{"code":"future","clock_skew_ms":300000}' } : { status: 200, body: "{}" };
    });
    expect((await gateway.ask(phone, "GET", "/x")).status).toBe(200);
    expect((sent[1]!.headers as Record<string, string>)["X-Timestamp"]).toBe(String(1_700_000_000_000 - 300_000));
    expect(gateway.clock.offsetMs).toBe(-300_000);
  });

  test("no clock is mended beyond two days", () => {
    const clock = new Clock(() => 0);
    expect(clock.mend(-MOST_MS - 1)).toBe(false);
    expect(clock.mend(Number.NaN)).toBe(false);
    expect(clock.offsetMs).toBe(0);
    expect(clock.mend(-86_400_000)).toBe(true);
    expect(clock.nowMs()).toBe(86_400_000);
  });

  test("no answer at all is unreachable", async () => {
    const gateway = new Gateway("https://gateway.example", new Clock(), () => Promise.reject(new TypeError("failed")));
    gateway.hotkey = key.address;
    await expect(gateway.ask(phone, "GET", "/x")).rejects.toMatchObject({ kind: "unreachable" });
    await expect(gateway.open("/x")).rejects.toBeInstanceOf(Failure);
  });
});

describe("events", () => {
  test("are read in whatever parts they come", () => {
    const stream = ': hi\r\nid: 1.A\r\nevent: state\r\ndata: {"a":\r\ndata: 1}\r\n\r\nid: 2\n\ndata: x\n\n';
    for (const size of [1, 2, 5, 100]) {
      const parser = new EventParser();
      const found = [];
      for (let at = 0; at < stream.length; at += size) found.push(...parser.feed(stream.slice(at, at + size)));
      expect(found).toEqual([
        { name: "state", data: { a: 1 } },
        { name: "message", data: null },
      ]);
      expect(parser.lastId).toBe("2");
    }
  });

  test("one without end is refused", () => {
    expect(() => new EventParser().feed("data: " + "x".repeat(300_000))).toThrow(RangeError);
  });

  test("one of many lines without end is refused, and what a lost stream has left is forgotten", () => {
    const parser = new EventParser();
    const line = "data: " + "x".repeat(100_000) + "\n";
    parser.feed(line);
    parser.feed(line);
    expect(() => parser.feed(line)).toThrow(RangeError);
    parser.begin();
    expect(parser.feed("data: 1\n\n")).toEqual([{ name: "message", data: 1 }]);
  });

  test("a lost stream is opened again after the last event, until the session is over", async () => {
    const signer = await signerOf(entropyOf(make()));
    const resumed: (string | undefined)[] = [];
    const bodies = ['id: 7\nevent: state\ndata: {"n":1}\n\n', "event: end\ndata: {}\n\n"];
    const gateway = new Gateway("https://gateway.example", new Clock(), async (_url, init) => {
      resumed.push((init.headers as Record<string, string>)["Last-Event-ID"]);
      return new Response(bodies.shift());
    });
    const heard: string[] = [];
    const listener = { event: (event: { name: string }) => void heard.push(event.name), live: () => undefined };
    await follow(gateway, signer, "s", listener, new AbortController().signal);
    expect(heard).toEqual(["state", "end"]);
    expect(resumed).toEqual([undefined, "7"]);
  });
});

describe("what is signed for a node", () => {
  test.each(vectors.texts)("$text is the text that Python signs", ({ value, text }) => {
    expect(canonical(value as Json)).toBe(text);
  });

  test("numbers that two readers could spell differently are refused", () => {
    expect(() => canonical({ a: 1.5 })).toThrow(RangeError);
  });

  test.each(vectors.proofs)("a proof of $cid holds for its root, and for no other note or root", async ({ cid, root, shown }) => {
    expect(await holds(shown as ShownProof, cid, root)).toBe(true);
    expect(await holds(shown as ShownProof, cid + "x", root)).toBe(false);
    expect(await holds(shown as ShownProof, cid, "00".repeat(32))).toBe(false);
    expect(await holds({ ...shown, siblings: shown.siblings.slice(1) } as ShownProof, cid, root)).toBe(false);
    expect(await holds({} as ShownProof, cid, root)).toBe(false);
  });
});

describe("secrets at rest", () => {
  const secret: Secret = { kind: "words", words: make(), entropyHex: "00", path: "//a" };

  test("open by the device's key, which cannot be exported", async () => {
    const sealed = await sealByDevice(secret, "5F");
    expect(await unseal(sealed, "5F")).toEqual(secret);
    await expect(unseal(sealed, "5G")).rejects.toBeInstanceOf(WrongKey);
    await expect(crypto.subtle.exportKey("raw", sealed.key!)).rejects.toThrow();
    expect(new TextDecoder("latin1").decode(sealed.ciphertext)).not.toContain(secret.words.slice(0, 8));
  });

  test("open by their passphrase alone", async () => {
    const sealed = await sealByPassphrase(secret, "5F", "correct horse");
    expect(await unseal(sealed, "5F", "correct horse")).toEqual(secret);
    await expect(unseal(sealed, "5F", "correct horsf")).rejects.toBeInstanceOf(WrongKey);
    await expect(sealByPassphrase(secret, "5F", "short")).rejects.toBeInstanceOf(RangeError);
  });
});

describe("texts", () => {
  test("both languages have the same ones", () => {
    const names = (of: object, at = ""): string[] =>
      Object.entries(of).flatMap(([name, value]) => (typeof value === "object" ? names(value, `${at}.${name}`) : [`${at}.${name}`]));
    expect(names(de)).toEqual(names(en));
  });

  test("durations and long ids are short", () => {
    expect([5, 65, 3_599, 3_600, 90_000, 200_000].map((each) => duration(each).value)).toEqual(["0:05", "1:05", "59:59", "1:00:00", "25:00:00", "2d 7h"]);
    expect(short("0123456789abcdef", 3)).toBe("012…def");
  });
});
