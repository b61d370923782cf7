// Receipts: one file with what was offered, signed, settled and sent back, which others can check without the gateway.

import type { Payment } from "../core/model";
import { app } from "./app.svelte";
import { save } from "./files";

/** Save the receipt of a session: each of its payments that this device knows. */
export async function saveReceipt(sessionId: string): Promise<void> {
  const seen = app.sessions.find(sessionId);
  if (!seen) return;
  const paymentId = seen.session.payment_id;
  if (paymentId) await app.sessions.readPayment(paymentId);
  const bought = app.purchases.all.filter((each) => each.sessionId === sessionId && each.state === "settled");
  const receipt = {
    engram_receipt: 1,
    gateway: app.shop.known?.hotkey ?? "",
    session: { ...seen.session, stats: {} },
    purchases: bought.map(({ path, body, network, payment, paymentId, createdAt }) => ({
      path,
      body,
      network,
      payment,
      payment_id: paymentId,
      signed_at: createdAt,
    })),
    payments: [paymentId, ...bought.map((each) => each.paymentId ?? "")]
      .map((each) => app.sessions.payments[each])
      .filter((each): each is Payment => each !== undefined)
      .filter((each, at, all) => all.findIndex((other) => other.payment_id === each.payment_id) === at),
  };
  save(new Blob([JSON.stringify(receipt, null, 2)], { type: "application/json" }), `engram-receipt-${sessionId.slice(0, 8)}.json`);
}
