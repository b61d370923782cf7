/// <reference types="svelte" />
/// <reference types="vite/client" />

/** Who signed this build's manifest (hex), and whether that is a release's key. */
declare const __BUILD_KEY__: { key: string; release: boolean };
/** The version of what was built. */
declare const __BUILD__: string;
