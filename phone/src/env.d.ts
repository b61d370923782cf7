/// <reference types="svelte" />
/// <reference types="vite/client" />

/** The version and the digest of what was built. */
declare const __BUILD__: string;
