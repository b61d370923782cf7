// The time by which requests are signed: this device's, mended by what the gateway says of a refused timestamp.

/** Below this the gateway takes a timestamp as it is. */
export const TOLERATED_MS = 60_000;
/** No clock is mended by more: an authorization's validity follows it. */
export const MOST_MS = 48 * 3_600_000;

export class Clock {
  /** Milliseconds to add to the device's time. */
  offsetMs = 0;

  constructor(private readonly device: () => number = Date.now) {}

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
