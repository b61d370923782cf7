// What @akashnetwork/chain-sdk and cosmjs make of the transactions, definitions and tokens on standard input (JSON),
// and transactions that cosmjs signs. cosmjs verifies what was signed: no code of Engram judges itself.
import { readFileSync } from "node:fs";
import { generateManifest, generateManifestVersion, JwtValidator, manifestToSortedJSON } from "@akashnetwork/chain-sdk";
import { MsgAccountDeposit, MsgMintACT } from "@akashnetwork/chain-sdk/private-types/akash.v1";
import {
  GroupSpec,
  MsgCloseDeployment,
  MsgCreateDeployment,
  MsgUpdateDeployment,
} from "@akashnetwork/chain-sdk/private-types/akash.v1beta4";
import { MsgCloseLease, MsgCreateLease } from "@akashnetwork/chain-sdk/private-types/akash.v1beta5";
import { Secp256k1, Secp256k1Signature, sha256 } from "@cosmjs/crypto";
import { fromHex, toHex } from "@cosmjs/encoding";
import {
  decodePubkey,
  decodeTxRaw,
  DirectSecp256k1HdWallet,
  encodePubkey,
  makeAuthInfoBytes,
  makeSignBytes,
  makeSignDoc,
} from "@cosmjs/proto-signing";
import { AuthInfo, TxBody, TxRaw } from "cosmjs-types/cosmos/tx/v1beta1/tx";
import { load } from "js-yaml";

const types = Object.fromEntries(
  [
    MsgCreateDeployment,
    MsgUpdateDeployment,
    MsgCloseDeployment,
    MsgCreateLease,
    MsgCloseLease,
    MsgAccountDeposit,
    MsgMintACT,
  ].map((type) => [`/${type.$type}`, type]),
);
const unpacked = ({ typeUrl, value }) => {
  const message = types[typeUrl].decode(value);
  return { typeUrl, message: types[typeUrl].toJSON(message), again: toHex(types[typeUrl].encode(message).finish()) };
};

async function verified({ raw, chain_id, account_number }) {
  const bytes = fromHex(raw);
  const outer = TxRaw.decode(bytes);
  const tx = decodeTxRaw(bytes);
  const [signer] = tx.authInfo.signerInfos;
  const signed = makeSignBytes({
    bodyBytes: outer.bodyBytes,
    authInfoBytes: outer.authInfoBytes,
    chainId: chain_id,
    accountNumber: BigInt(account_number),
  });
  const key = fromHex(Buffer.from(decodePubkey(signer.publicKey).value, "base64").toString("hex"));
  const signature = Secp256k1Signature.fromFixedLength(tx.signatures[0]);
  const timeout = tx.body.timeoutTimestamp;
  return {
    holds: await Secp256k1.verifySignature(signature, sha256(signed), key),
    unordered: tx.body.unordered,
    timeout: timeout && [Number(timeout.seconds), timeout.nanos],
    timeout_height: Number(tx.body.timeoutHeight),
    sequence: Number(signer.sequence),
    memo: tx.body.memo,
    gas: Number(tx.authInfo.fee.gasLimit),
    fee: tx.authInfo.fee.amount,
    again: toHex(TxRaw.encode(outer).finish()),
    body_again: toHex(TxBody.encode(TxBody.decode(outer.bodyBytes)).finish()) === toHex(outer.bodyBytes),
    auth_again: toHex(AuthInfo.encode(AuthInfo.decode(outer.authInfoBytes)).finish()) === toHex(outer.authInfoBytes),
    messages: tx.body.messages.map(unpacked),
  };
}

async function compiled(yaml) {
  const made = generateManifest(load(yaml));
  if (!made.ok) return { errors: made.value.map((error) => error.message) };
  return {
    json: manifestToSortedJSON(made.value.groups),
    version: toHex(await generateManifestVersion(made.value.groups)),
    groups: made.value.groupSpecs.map((group) => toHex(GroupSpec.encode(GroupSpec.fromPartial(group)).finish())),
  };
}

async function signed({ mnemonic, messages, timeout, gas, amount, chain_id, account_number }) {
  const wallet = await DirectSecp256k1HdWallet.fromMnemonic(mnemonic, { prefix: "akash" });
  const [{ address, pubkey }] = await wallet.getAccounts();
  const key = encodePubkey({ type: "tendermint/PubKeySecp256k1", value: Buffer.from(pubkey).toString("base64") });
  const body = TxBody.encode(
    TxBody.fromPartial({
      messages: messages.map(({ typeUrl, message }) => ({
        typeUrl,
        value: types[typeUrl].encode(types[typeUrl].fromJSON(message)).finish(),
      })),
      unordered: true,
      timeoutTimestamp: { seconds: BigInt(timeout[0]), nanos: timeout[1] },
    }),
  ).finish();
  const auth = makeAuthInfoBytes([{ pubkey: key, sequence: 0 }], [{ denom: "uakt", amount }], gas, undefined, undefined);
  const { signed, signature } = await wallet.signDirect(address, makeSignDoc(body, auth, chain_id, account_number));
  const tx = TxRaw.fromPartial({
    bodyBytes: signed.bodyBytes,
    authInfoBytes: signed.authInfoBytes,
    signatures: [Buffer.from(signature.signature, "base64")],
  });
  return { address, raw: toHex(TxRaw.encode(tx).finish()) };
}

const asked = JSON.parse(readFileSync(0, "utf8"));
const validator = new JwtValidator();
const answer = {
  verified: await Promise.all((asked.transactions ?? []).map(verified)),
  compiled: await Promise.all((asked.definitions ?? []).map(compiled)),
  signed: await Promise.all((asked.sign ?? []).map(signed)),
  tokens: (asked.tokens ?? []).map((token) => validator.validateToken(token)),
};
process.stdout.write(JSON.stringify(answer));
