// Writes tests/hotkeys/data/polkadot_js.json: addresses and keystores of published test secrets, as polkadot-js makes
// them. Run by hand in a folder that has @polkadot/keyring and @polkadot/util-crypto 14: node keystores.mjs > FILE
import { Keyring } from "@polkadot/keyring";
import { cryptoWaitReady } from "@polkadot/util-crypto";

await cryptoWaitReady();
const password = "pw-of-Tests9! ü";
const twelve = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
const twentyFour =
  "void come effort suffer camp survey warrior heavy shoot primary clutch crush " +
  "open amazing screen patrol group space point ten exist slush involve unfold";
const seed = "0x" + "11".repeat(32);
const of = (uri, type = "sr25519", ss58Format = 42) => new Keyring({ type, ss58Format }).addFromUri(uri, { name: "test" });
const uris = [];
for (const secret of [twelve, twentyFour, seed])
  for (const behind of ["", "//0", "//hard/soft", "/soft/1", "///a password", "//hard///a password"])
    uris.push({ secret, behind, address: of(secret + behind).address });
const keystores = {
  words: of(twelve).toJson(password),
  derived: of(twelve + "//hard/soft").toJson(password),
  seed: of(seed).toJson(password),
  polkadot: of(twelve, "sr25519", 0).toJson(password),
  kusama: of(twelve, "sr25519", 2).toJson(password),
  plain: of(twelve).toJson(),
  ed25519: of(twelve, "ed25519").toJson(password),
  ecdsa: of(twelve, "ecdsa").toJson(password),
};
console.log(JSON.stringify({ password, uris, keystores }, null, 1));
