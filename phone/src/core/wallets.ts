// Finds the wallets that a browser brings (EIP-6963), without loading what pays.

import type { Provider } from "./injected";

export interface Announced {
  id: string;
  name: string;
  provider: Provider;
}

/** Call `found` for each wallet that announces itself, now or later; returns how to stop. */
export function discover(found: (wallet: Announced) => void): () => void {
  const heard = (event: Event): void => {
    const detail = (event as CustomEvent).detail as { info?: { uuid?: unknown; name?: unknown }; provider?: Provider } | null;
    const { uuid, name } = detail?.info ?? {};
    if (typeof uuid === "string" && typeof name === "string" && typeof detail?.provider?.request === "function") {
      found({ id: uuid.slice(0, 64), name: name.slice(0, 40), provider: detail.provider });
    }
  };
  window.addEventListener("eip6963:announceProvider", heard);
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  return () => window.removeEventListener("eip6963:announceProvider", heard);
}
