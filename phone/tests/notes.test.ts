import { beforeAll, describe, expect, test } from "vitest";

import { hex, sha256, unbase64, utf8 } from "../src/core/bytes";
import { Clock } from "../src/core/clock";
import { Gateway } from "../src/core/gateway";
import { signerOf, type Signer } from "../src/core/keys";
import { read } from "../src/core/keystore";
import { LIFETIME_S, readLink, timeOf } from "../src/core/link";
import { Memory } from "../src/core/node";
import { restore, type ExportedRecord } from "../src/core/restore";
import { fits, NotesCipher, notesKey, NotesVectors, wordsIn } from "../src/core/notes";
import { entropyOf, make } from "../src/core/words";
import vectors from "./vectors.json";

let signer: Signer;
let other: Signer;

beforeAll(async () => {
  signer = await read(vectors.keystore.json, vectors.keystore.passphrase);
  other = await signerOf(entropyOf(make()));
}, 20_000);

function floats(packed: string): number[] {
  const view = new DataView(unbase64(packed).buffer);
  return Array.from({ length: view.byteLength / 4 }, (_, at) => view.getFloat32(4 * at, true));
}

describe("encrypted notes", () => {
  test("keys and vectors are those of the SDK", () => {
    expect(notesKey(signer)).toBe(vectors.notes.key);
    const made = new NotesVectors(signer);
    for (const { text, packed } of vectors.notes.vectors) {
      const expected = floats(packed);
      made.of(text, expected.length).forEach((each, at) => expect(each).toBeCloseTo(expected[at] as number, 6));
    }
  });

  test("what the SDK sealed is opened, and nothing that another key sealed or somebody changed", async () => {
    const cipher = await NotesCipher.of(notesKey(signer));
    expect(await cipher.open(vectors.sealed)).toEqual({ text: "Late frost.", metadata: { stored_at: 1_700_000_000 } });
    const note = { text: "Grüße 😀", metadata: {} };
    const sealed = await cipher.seal(note);
    expect(await cipher.open(sealed)).toEqual(note);
    expect(await cipher.seal(note)).not.toBe(sealed);
    expect(await (await NotesCipher.of(notesKey(other))).open(sealed)).toBeNull();
    expect(await cipher.open((sealed.startsWith("A") ? "B" : "A") + sealed.slice(1))).toBeNull();
    for (const garbage of ["", "%", "AAAA"]) expect(await cipher.open(garbage)).toBeNull();
  });

  test("texts that share words are near, for this identity alone", () => {
    const mine = new NotesVectors(signer);
    const theirs = new NotesVectors(other);
    const nearness = (a: Float32Array, b: Float32Array) => a.reduce((sum, each, at) => sum + each * (b[at] as number), 0);
    const [note, question] = ["The bank raised interest rates in spring.", "interest rates"];
    expect(nearness(mine.of(note, 384), mine.of(question, 384))).toBeGreaterThan(0.35);
    expect(Math.abs(nearness(mine.of(note, 384), mine.of("vineyard", 384)))).toBeLessThan(0.25);
    expect(Math.abs(nearness(mine.of(note, 384), theirs.of(note, 384)))).toBeLessThan(0.25);
  });

  test("a note is found by a word of it, or by much that is alike", () => {
    expect(wordsIn("Ünï, ünï 42!")).toEqual(["ünï", "42"]);
    expect(fits("Late frost ruined it", "frost", 0.1)).toBe(true);
    expect(fits("Late frost ruined it", "bank", 0.1)).toBe(false);
    expect(fits("Late frost ruined it", "frosts", 0.4)).toBe(true);
    expect(fits("a b", "a", 0.1)).toBe(false);
  });

  test("nothing of an encrypted note leaves the phone but a ciphertext and a vector", async () => {
    const bodies: string[] = [];
    const gateway = new Gateway("http://x", new Clock(), async (_url, init) => {
      bodies.push(String(init.body ?? ""));
      const answer = utf8(JSON.stringify({ cid: "v1::aa", dimension: 384, results: [], records: [], count: 0 }));
      const stamp = (init.headers as Record<string, string>)["X-Timestamp"];
      const message = utf8(`engram-gateway:200:${stamp}:${hex(await sha256(answer))}`);
      const headers = { "X-Gateway-Hotkey": other.address, "X-Gateway-Sig": hex(other.sign(message)) };
      return new Response(answer, { status: 200, headers });
    });
    gateway.hotkey = other.address;
    const memory = new Memory(gateway, signer, "s", null);
    expect(await memory.store("Late frost ruined it", 1_700_000_000.5, true)).toBe("v1::aa");
    await memory.search("frost", false);
    expect(bodies.join()).toContain("raw_embedding_b64");
    expect(bodies.join()).toContain("query_vector_b64");
    expect(bodies.join().toLowerCase()).not.toContain("frost");
    await memory.search("frost", true);
    expect(bodies.join()).toContain('"query_text":"frost"');
  });
});

describe("a node that is compared with what is known of it", () => {
  const NOW_S = 1_700_000_000;
  const { cid, root, shown } = vectors.proofs.find((each) => !each.cid.endsWith("0000"))!;
  const note = { cid, secret: true };
  const known = (secret: string[], open: string[] = []) => ({ emptiedAt: null, secret, open });

  /** A node that proves the one note, and counts what it is told to; `sign` is its key. */
  async function node(count: unknown, sign: Signer = other, open: unknown = count): Promise<{ memory: Memory; asked: string[] }> {
    const asked: string[] = [];
    const gateway = new Gateway("http://x", new Clock(), async (_url, init) => {
      const { cid: about, namespace } = JSON.parse(String(init.body)) as { cid: string; namespace: string };
      asked.push(`${namespace} ${about === cid ? "note" : "none"}`);
      const counted = namespace === "phone" ? open : count;
      const text = `engram-commitment:keyed-1:${namespace}:${root}:${String(counted)}:${NOW_S * 1000}`;
      const proof = JSON.stringify(about === cid ? shown : { key: "" });
      const body = utf8(JSON.stringify({ root_hex: root, count: counted, signed: text, signature: hex(sign.sign(utf8(text))), proof }));
      const stamp = (init.headers as Record<string, string>)["X-Timestamp"];
      const vouched = hex(other.sign(utf8(`engram-gateway:200:${stamp}:${hex(await sha256(body))}`)));
      return new Response(body, { status: 200, headers: { "X-Gateway-Hotkey": other.address, "X-Gateway-Sig": vouched } });
    });
    gateway.hotkey = other.address;
    return { memory: new Memory(gateway, signer, "s", other.address), asked };
  }

  test("is believed when it proves what is sampled and counts what is known, or more", async () => {
    for (const count of [1, 7]) {
      const { memory } = await node(count);
      expect(await memory.audit(known([cid]), [note], NOW_S)).toEqual({ missing: [], fewer: 0 });
    }
  });

  test("is found out when its signed root counts less, though every sampled note is proven", async () => {
    const { memory } = await node(2);
    expect(await memory.audit(known([cid, "b", "c", "d"]), [note], NOW_S)).toEqual({ missing: [], fewer: 2 });
  });

  test("counts the notes of which none was sampled too, and is asked for no kind that it holds none of", async () => {
    const { memory, asked } = await node(1, other, 0);
    expect(await memory.audit(known([cid], ["e", "f"]), [note], NOW_S)).toEqual({ missing: [], fewer: 2 });
    expect(asked).toEqual(["phone_private note", "phone none"]);
    expect(await memory.audit(known([cid]), [note], NOW_S)).toEqual({ missing: [], fewer: 0 });
    expect(asked.at(-1)).toBe("phone_private note");
  });

  test.each([["a count that is none", "many"], ["a count below nothing", -3], ["a broken count", 1.5]])("is not believed for %s", async (_, count) => {
    const { memory } = await node(count);
    expect((await memory.audit(known([cid, "b"]), [note], NOW_S)).fewer).toBe(2);
  });

  test("is not believed with a root of another key", async () => {
    const { memory } = await node(9, signer);
    expect(await memory.audit(known([cid], ["e"]), [note], NOW_S)).toEqual({ missing: [note], fewer: 2 });
  });
});

describe("an export", () => {
  const record = (fields: object) => JSON.stringify({ kind: "record", cid: "v1::a", namespace: "phone", metadata: { text: "x" }, embedding_b64: "AAAA", text: "x", ...fields });
  const END = '{"kind":"end"}';

  /** A memory whose node gives each record the id that it had, but for those named. */
  function put(lines: string[], { refusing = [] as string[], ending = "\n" } = {}) {
    const batches: ExportedRecord[][] = [];
    const memory = {
      owns: (namespace: string) => ["phone", "phone_private"].includes(namespace),
      putBack: async (records: readonly ExportedRecord[]) => {
        batches.push([...records]);
        return records.filter(({ cid }) => !refusing.includes(cid)).length;
      },
    };
    return { done: restore(memory as unknown as Memory, new Blob([lines.join("\n") + ending])), batches };
  }

  test("is put back whole, each namespace by itself", async () => {
    const { done, batches } = put([record({}), record({ namespace: "phone_private", cid: "v1::b", text: null }), record({ cid: "v1::c" }), END]);
    expect(await done).toEqual({ stored: 3, failed: 0, others: 0, whole: true });
    expect(batches.map((batch) => batch.map(({ cid }) => cid))).toEqual([["v1::a", "v1::c"], ["v1::b"]]);
  });

  test("of any size goes in requests of a bounded size", async () => {
    const { done, batches } = put([...Array.from({ length: 70 }, (_, at) => record({ cid: `v1::${at}` })), END], { ending: "" });
    expect(await done).toMatchObject({ stored: 70, whole: true });
    expect(batches.map((batch) => batch.length)).toEqual([32, 32, 6]);
  });

  test("that was cut off, is another's, or holds more than notes is told as what it is", async () => {
    expect(await put([record({}), record({ cid: "v1::b" }).slice(0, 40)], { ending: "" }).done).toEqual({ stored: 1, failed: 1, others: 0, whole: false });
    const others = [record({ namespace: "work" }), record({ key: "color" }), record({ expires_at: 1.5 }), '{"kind":"conversation","id":1}'];
    expect(await put([...others, END]).done).toEqual({ stored: 0, failed: 0, others: 4, whole: true });
    for (const broken of ["null", "[]", "7", "{", record({ cid: 7 }), record({ metadata: null }), record({ metadata: { a: 1 } }), record({ embedding_b64: null })]) {
      expect((await put([broken, END]).done).stored, broken).toBe(0);
    }
    expect(await put([record({}), END], { refusing: ["v1::a"] }).done).toMatchObject({ stored: 0, failed: 1 });
    expect(await put(["x".repeat(1_500_000)]).done).toMatchObject({ stored: 0, whole: false });
  });
});

describe("pay links", () => {
  const { gateway, text } = vectors.link;

  test("what the gateway signed is read", async () => {
    expect(await readLink(text, gateway)).toMatchObject({
      tier: "lite",
      hours: 1.5,
      sessionId: null,
      amount: 150_000n,
      recipient: "0x" + "11".repeat(20),
      expiresAt: 1_700_000_900,
      network: { name: "base" },
    });
  });

  test("nothing else is", async () => {
    const [content, signature] = text.split(".") as [string, string];
    const changed = (content.startsWith("e") ? "f" : "e") + content.slice(1);
    for (const given of ["", ".", content, `${changed}.${signature}`, `${content}.${signature}.x`, text + "A".repeat(3_000), `${content}.%`]) {
      await expect(readLink(given, gateway)).rejects.toMatchObject({ code: "bad_link" });
    }
    await expect(readLink(text, other.address)).rejects.toMatchObject({ code: "bad_link" });
  });

  test("the gateway's time is taken within what it signed", async () => {
    const link = await readLink(text, gateway);
    const [at, device] = [link.expiresAt - 100, link.expiresAt - 5_000];
    expect(timeOf(link, at, device)).toBe(at);
    expect(timeOf(link, null, device)).toBe(device);
    for (const wrong of [link.expiresAt + 60, link.expiresAt - LIFETIME_S - 60]) expect(timeOf(link, wrong, device)).toBe(device);
  });
});
