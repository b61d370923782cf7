// The time by which requests are signed: this device's, mended by what the gateway says of a refused timestamp.

/** Below this the gateway takes a timestamp as it is. */
export const TOLERATED_MS = 60_000;
/** No clock is mended by more: an authorization's validity follows it. */
export const MOST_MS = 48 * 3_600_000;
/** Less than this between two clocks is drift, or the time that reading them takes. */
const SET_MS = 5_000;

/** The device's clock was set since it was compared with the gateway's: it is compared again before anything is paid. */
export class ClockSet extends Error {}

export class Clock {
  /** Milliseconds to add to the device's time. */
  offsetMs = 0;
  /** By how much the device's time was ahead of one that nobody sets, when it was compared with the gateway's. */
  #aheadMs: number;

  /** `steady` counts milliseconds, and may stand still while the device sleeps. */
  constructor(
    private readonly device: () => number = Date.now,
    private readonly steady: () => number = () => performance.now(),
  ) {
    this.#aheadMs = device() - steady();
  }

  /** The gateway took a request for one of now. */
  compared(): void {
    this.#aheadMs = this.device() - this.steady();
  }

  /** Whether the device's clock was set, or the device slept, since it was compared. */
  get wasSet(): boolean {
    return Math.abs(this.device() - this.steady() - this.#aheadMs) > SET_MS;
  }

  nowMs(): number {
    return Math.round(this.device() + this.offsetMs);
  }

  nowS(): number {
    return this.nowMs() / 1000;
  }

  /** Unix seconds by this device alone, whatever a gateway says. */
  deviceS(): number {
    return this.device() / 1000;
  }

  /** Take how far a timestamp was ahead of the gateway's clock; return whether it was believable. */
  mend(skewMs: number): boolean {
    const offset = this.offsetMs - skewMs;
    if (!Number.isFinite(offset) || Math.abs(offset) > MOST_MS) return false;
    this.offsetMs = Math.round(offset);
    return true;
  }
}
