import { mount } from "svelte";

import Root from "./Root.svelte";
import "./style.css";
import { app } from "./ui/app.svelte";

declare global {
  interface Window {
    trustedTypes?: { createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): unknown } };
  }
}

mount(Root, { target: document.getElementById("app") as HTMLElement });
await app.start();

if (import.meta.env.PROD && window.isSecureContext && "serviceWorker" in navigator) {
  const policy = window.trustedTypes?.createPolicy("engram", {
    createScriptURL(url) {
      if (url !== "/app/sw.js") throw new TypeError("only the app's own worker");
      return url;
    },
  });
  const url = policy ? (policy.createScriptURL("/app/sw.js") as string) : "/app/sw.js";
  void app.installWorker(url).catch(() => undefined); // without a worker the app needs the gateway, and works
}
