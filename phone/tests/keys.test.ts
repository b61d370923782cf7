import { describe, expect, test } from "vitest";

import { hex, unhex, utf8 } from "../src/core/bytes";
import { isPath, signed, Signer, signerOf } from "../src/core/keys";
import { read, write } from "../src/core/keystore";
import { network } from "../src/core/networks";
import { addressOf, digest, SpendingKey } from "../src/core/spending";
import { decode, keyOfAnyPrefix } from "../src/core/ss58";
import { tidy } from "../src/core/seeds";
import { entropyOf, fault, make } from "../src/core/words";
import recorded from "../../tests/hotkeys/data/polkadot_js.json";
import vectors from "./vectors.json";

describe("identities", () => {
  test.each(vectors.derivations)("$path is derived as substrate-interface does", async ({ words, path, address }) => {
    expect((await signerOf(entropyOf(words), path)).address).toBe(address);
  });

  test("a signature holds for its message and no other", async () => {
    const signer = await signerOf(entropyOf(vectors.derivations[0]!.words));
    const message = utf8("engram-cloud:POST:/sessions:1");
    const signature = signer.sign(message);
    expect(signed(signer.publicKey, message, signature)).toBe(true);
    expect(signed(signer.publicKey, utf8("engram-cloud:POST:/sessions:2"), signature)).toBe(false);
    expect(signed(signer.publicKey, message, new Uint8Array(3))).toBe(false);
  });

  test("words are tidied, and what is wrong with them is named", () => {
    const words = make();
    expect(words.split(" ")).toHaveLength(12);
    expect(make(24).split(" ")).toHaveLength(24);
    expect(fault(` ${words.toUpperCase()}\n`)).toBeNull();
    expect(tidy(`  ${words.toUpperCase()} `)).toBe(words);
    expect(fault("abandon abandon")).toEqual({ code: "count", found: 2 });
    expect(fault("bitcoin " + words)).toEqual({ code: "unknown", word: "bitcoin" });
    expect(fault("abandon ".repeat(12))).toEqual({ code: "checksum" });
  });

  test("paths and addresses that are none are refused", async () => {
    expect(isPath("//a/b//7")).toBe(true);
    expect(isPath("a")).toBe(false);
    await expect(signerOf(entropyOf(make()), "phone")).rejects.toThrow(RangeError);
    expect(() => decode("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ")).toThrow(RangeError);
    expect(hex(decode("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"))).toBe(
      "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
    );
  });
});

describe("spending keys", () => {
  test.each(vectors.spending)("$address is what EVM wallets derive", async ({ words, address }) => {
    expect((await SpendingKey.of(words)).address).toBe(address);
  });

  test.each(vectors.digests)("an authorization on $network has EIP-712's digest", ({ network: name, digest: expected }) => {
    const authorization = {
      from: "0x" + "11".repeat(20),
      to: "0x" + "22".repeat(20),
      value: 2_400_000n,
      validAfter: 1_700_000_000n,
      validBefore: 1_700_000_120n,
      nonce: "0x" + "33".repeat(32),
    };
    expect(hex(digest(authorization, network(name)!))).toBe(expected);
  });

  test("a signature has 65 bytes, ends with 27 or 28, and is made for its payer alone", async () => {
    const secret = unhex("11".repeat(32));
    const key = new SpendingKey(secret);
    const authorization = { from: addressOf(secret), to: "0x" + "22".repeat(20), value: 1n, validAfter: 0n, validBefore: 9n, nonce: "0x" + "00".repeat(32) };
    const signature = await key.authorize(authorization, network("base")!);
    expect(signature).toMatch(/^0x[0-9a-f]{128}1[bc]$/);
    await expect(key.authorize({ ...authorization, from: "0x" + "22".repeat(20) }, network("base")!)).rejects.toThrow(RangeError);
  });
});

describe("keystores", () => {
  const { json, passphrase, address } = vectors.keystore;

  test("one of substrate-interface opens", async () => {
    expect((await read(json, passphrase)).address).toBe(address);
  });

  test.each(["words", "derived", "seed", "polkadot", "kusama", "plain"] as const)("one of polkadot-js opens (%s)", async (name) => {
    const keystore = recorded.keystores[name];
    const signer = await read(JSON.stringify(keystore), name === "plain" ? "" : recorded.password);
    expect(hex(signer.publicKey)).toBe(hex(keyOfAnyPrefix(keystore.address)));
  });

  test.each(["ed25519", "ecdsa"] as const)("one of polkadot-js with a key of another kind is named (%s)", async (name) => {
    await expect(read(JSON.stringify(recorded.keystores[name]), recorded.password)).rejects.toMatchObject({ code: "not_sr25519" });
  });

  test("what is written is read again as the same key, which signs", async () => {
    const signer = await signerOf(entropyOf(make()));
    const again = await read(await write(signer, "another one", "me"), "another one");
    expect(again.address).toBe(signer.address);
    expect(signed(signer.publicKey, utf8("x"), again.sign(utf8("x")))).toBe(true);
    expect(new Signer(again.exported()).address).toBe(signer.address);
  });

  test.each([
    ["wrong_passphrase", json, "guess"],
    ["no_keystore", "{}", ""],
    ["not_sr25519", json.replace("sr25519", "ed25519"), passphrase],
    ["other_key", json.replace(address, "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"), passphrase],
  ])("%s is named", async (code, given, pass) => {
    await expect(read(given, pass)).rejects.toMatchObject({ code });
  });
});
