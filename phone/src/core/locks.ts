// One window signs at a time. The others show the same state, and can take over.

const NAME = "engram-signing";

export interface Turn {
  /** Whether this window is the one that signs. */
  readonly mine: boolean;
  release(): void;
}

/** Wait to become the window that signs; `changed` is called whenever that changes. `steal` takes over at once. */
export function takeTurn(changed: (mine: boolean) => void, steal = false): Turn {
  let mine = false;
  let done: () => void = () => undefined;
  const held = new Promise<void>((resolve) => (done = resolve));
  const waiting = new AbortController();
  const set = (is: boolean): void => {
    mine = is;
    changed(is);
  };
  const options: LockOptions = steal ? { steal: true } : { signal: waiting.signal };
  navigator.locks
    .request(NAME, options, () => {
      set(true);
      return held;
    })
    .catch(() => set(false)); // stolen by another window, or given up
  return {
    get mine() {
      return mine;
    },
    release() {
      waiting.abort();
      done();
    },
  };
}
