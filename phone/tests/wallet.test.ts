import { describe, expect, test } from "vitest";

import { secretOfPair, secretOfWords, type KeptIdentity } from "../src/core/identity";
import { make } from "../src/core/words";
import { BadCode, makeCode, Passage, readCode, type Carried } from "../src/core/transfer";
import { OtherWords, Wallet } from "../src/ui/wallet.svelte";
import { MemoryStore, openWallet } from "./stand-ins";

const PASSPHRASE = "correct horse battery";

describe("an identity that is here already", () => {
  test("keeps its words when its own keystore file is brought", async () => {
    const wallet = await openWallet();
    const { words } = wallet.open!;
    const payer = (await wallet.open!.spending()).address;
    await wallet.add(secretOfPair(wallet.open!.signer, make()), "file", false);
    expect(wallet.open!.words).toBe(words);
    expect((await wallet.open!.spending()).address).toBe(payer);
    expect(wallet.all).toHaveLength(1);
  });

  test("keeps the spending words that it got with the file when the file is brought again", async () => {
    const wallet = new Wallet(new MemoryStore());
    const { signer } = (await openWallet()).open!;
    await wallet.add(secretOfPair(signer, make()), "file", false);
    const { words } = wallet.open!;
    await wallet.add(secretOfPair(wallet.open!.signer, make()), "file", false);
    expect(wallet.open!.words).toBe(words);
  });

  test("that came by a file is not replaced by its words, and says so", async () => {
    const wallet = new Wallet(new MemoryStore());
    const original = make();
    const source = new Wallet(new MemoryStore());
    await source.add(await secretOfWords(original), "me", true);
    await wallet.add(secretOfPair(source.open!.signer, make()), "file", false);
    const { words } = wallet.open!;
    await expect(wallet.add(await secretOfWords(original), "me", true)).rejects.toBeInstanceOf(OtherWords);
    expect(wallet.open!.words).toBe(words);
  });

  test.each(["file", "words"])("stays under its passphrase when it is brought again by %s", async (by) => {
    const store = new MemoryStore();
    const wallet = await openWallet(store);
    const words = wallet.open!.words;
    const again = by === "words" ? await secretOfWords(words) : secretOfPair(wallet.open!.signer, make());
    await wallet.protect("passphrase", PASSPHRASE);
    wallet.lock();
    await wallet.add(again, "again", true);
    const [kept] = await store.all<KeptIdentity>("identities");
    expect(kept!.sealed.by).toBe("passphrase");
    // Who knows the words is in; who has the file alone is asked for the passphrase.
    expect(wallet.open?.words).toBe(by === "words" ? words : undefined);
    await wallet.unlock(PASSPHRASE);
    expect(wallet.open!.words).toBe(words);
  });
});

test("an identity that is forgotten leaves nothing of itself, and the other one keeps everything", async () => {
  const store = new MemoryStore();
  const wallet = await openWallet(store);
  const [first, theirs] = [wallet.current!, "5Other"];
  const { signer } = wallet.open!;
  for (const buyer of [first, theirs]) {
    await store.put("purchases", `of ${buyer}`, { id: `of ${buyer}`, buyer });
    await store.put("seen", `sessions ${buyer}`, []);
    await store.put("seen", `payments ${buyer}`, {});
  }
  await store.put("settings", "link", { buyer: first });
  await store.put("seen", "shelf", {});
  await store.put("purchases", "open", { id: "open", buyer: first, state: "unknown" });
  await wallet.forget((purchase) => purchase.state === "unknown");
  expect(await store.get("purchases", "open")).toBeDefined();
  await store.remove("purchases", "open");
  expect([...store.kept.keys()].filter((key) => key.includes(first))).toEqual([]);
  expect([...store.kept.keys()].sort()).toEqual(["purchases|of 5Other", "seen|payments 5Other", "seen|sessions 5Other", "seen|shelf"]);
  expect(signer.exported().every((byte) => byte === 0)).toBe(true);
  expect([wallet.open, wallet.current]).toEqual([null, null]);
});

test("of two identities one is open: the key of the other is wiped", async () => {
  const wallet = await openWallet();
  const { signer: first } = wallet.open!;
  const address = wallet.current!;
  await wallet.add(await secretOfWords(make()), "second", true);
  expect(first.exported().every((byte) => byte === 0)).toBe(true);
  const { signer: second } = wallet.open!;
  await wallet.choose(address);
  expect(wallet.open!.address).toBe(address);
  expect(second.exported().every((byte) => byte === 0)).toBe(true);
});

describe("a one-time code", () => {
  const carried: Carried = { secret: { kind: "words", words: "a b", entropyHex: "00", path: "" }, name: "mine", checked: true };

  test("is read as it is typed, and nothing else is", () => {
    const code = makeCode();
    expect(code).toMatch(/^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}$/);
    expect(readCode(code.toLowerCase().replaceAll("-", " "))).toBe(code.replaceAll("-", ""));
    expect(readCode("olil-0000-0000-000O")).toBe("0111000000000000");
    for (const typed of ["", "ABCD", code + "A", "ÄBCD-EFGH-JKMN-PQRS", "UUUU-UUUU-UUUU-UUUU"]) expect(readCode(typed)).toBeNull();
  });

  test("opens what it sealed; another one leads elsewhere", async () => {
    const [here, there, other] = await Promise.all(["ABCD-EFGH-JKMN-PQRS", "abcdefghjkmnpqrs", "ABCD-EFGH-JKMN-PQRT"].map((code) => Passage.of(code)));
    const sealed = await here!.seal(carried);
    expect(await there!.open(sealed)).toEqual(carried);
    expect([there!.id, other!.id === here!.id, here!.id.length]).toEqual([here!.id, false, 32]);
    await expect(other!.open(sealed)).rejects.toThrow(BadCode);
    await expect(here!.open("")).rejects.toThrow(BadCode);
    await expect(Passage.of("short")).rejects.toThrow(BadCode);
  });
});
