// Milliseconds that cosmjs takes to make and sign a transaction, for bench/akash.py: one message on standard input
// ({mnemonic, type_url, value}), signed `rounds` times.
import { readFileSync } from "node:fs";
import { fromHex } from "@cosmjs/encoding";
import { DirectSecp256k1HdWallet, encodePubkey, makeAuthInfoBytes, makeSignDoc } from "@cosmjs/proto-signing";
import { TxBody, TxRaw } from "cosmjs-types/cosmos/tx/v1beta1/tx";

const { mnemonic, type_url, value, rounds } = JSON.parse(readFileSync(0, "utf8"));
const wallet = await DirectSecp256k1HdWallet.fromMnemonic(mnemonic, { prefix: "akash" });
const [{ address, pubkey }] = await wallet.getAccounts();
const key = encodePubkey({ type: "tendermint/PubKeySecp256k1", value: Buffer.from(pubkey).toString("base64") });
const messages = [{ typeUrl: type_url, value: fromHex(value) }];

async function sign(nanos) {
  const timeoutTimestamp = { seconds: 1790000000n, nanos };
  const body = TxBody.encode(TxBody.fromPartial({ messages, unordered: true, timeoutTimestamp })).finish();
  const fee = [{ denom: "uakt", amount: "10000" }];
  const auth = makeAuthInfoBytes([{ pubkey: key, sequence: 0 }], fee, 400000, undefined, undefined);
  const { signature } = await wallet.signDirect(address, makeSignDoc(body, auth, "akashnet-2", 1));
  return TxRaw.encode(
    TxRaw.fromPartial({
      bodyBytes: body,
      authInfoBytes: auth,
      signatures: [Buffer.from(signature.signature, "base64")],
    }),
  ).finish();
}

for (let at = 0; at < 50; at++) await sign(at);
const before = process.cpuUsage();
for (let at = 0; at < rounds; at++) await sign(at);
const { user, system } = process.cpuUsage(before);
process.stdout.write(String((user + system) / 1000 / rounds));
