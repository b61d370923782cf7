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
  let released = false;
  let done: () => void = () => undefined;
  const waiting = new AbortController();
  const set = (is: boolean): void => {
    mine = is;
    changed(is);
  };
  const request = (options: LockOptions): void => {
    const held = new Promise<void>((resolve) => (done = resolve));
    navigator.locks
      .request(NAME, options, () => {
        set(true);
        return held;
      })
      .catch(() => {
        set(false);
        // Another window took over: this one comes next when it is closed.
        if (!released) request({ signal: waiting.signal });
      });
  };
  request(steal ? { steal: true } : { signal: waiting.signal });
  return {
    get mine() {
      return mine;
    },
    release() {
      released = true;
      waiting.abort();
      done();
    },
  };
}
