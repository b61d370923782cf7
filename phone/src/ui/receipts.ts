// Receipts: one file with what the gateway signed of a session and its payments, and what the buyer signed, which
// `engram receipt` checks without the gateway.

import type { Proof } from "../core/gateway";
import { app } from "./app.svelte";
import { save } from "./files";

/** Save the receipt of a session. Throws Failure when the gateway does not answer. */
export async function saveReceipt(sessionId: string): Promise<void> {
  const signer = app.wallet.open?.signer;
  const seen = app.sessions.find(sessionId);
  if (!signer || !seen) return;
  const bought = app.purchases.all.filter((each) => each.sessionId === sessionId && each.state === "settled");
  const payments = new Set([seen.session.payment_id, ...bought.map((each) => each.paymentId ?? "")].filter(Boolean));
  const answers: Proof[] = [];
  for (const path of [`/sessions/${sessionId}`, ...[...payments].map((each) => `/payments/${each}`)]) {
    const { proof } = await app.shop.gateway.ask(signer, "GET", path);
    if (proof) answers.push(proof);
  }
  const purchases = bought.map(({ path, body, network, payment, paymentId }) => ({ path, body, network, payment, payment_id: paymentId }));
  const receipt = { engram_receipt: 1, gateway: app.shop.known?.hotkey ?? "", buyer: signer.address, answers, purchases };
  save(new Blob([JSON.stringify(receipt, null, 1)], { type: "application/json" }), `engram-receipt-${sessionId.slice(0, 8)}.json`);
}
