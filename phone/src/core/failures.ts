// What can go wrong with a request, in the few kinds that a person is told apart.

export type FailureKind =
  | "unreachable" // no answer came; what was asked may have been done
  | "refused" // the gateway says no, with a code
  | "impostor" // another key answered than the one that is known here
  | "unsigned" // an answer that must be signed is not
  | "malformed"; // an answer that cannot be read, or is too large

export class Failure extends Error {
  readonly kind: FailureKind;
  readonly code: string;
  readonly status: number;
  readonly retryAfterS: number | null;
  readonly body: unknown;

  constructor(
    kind: FailureKind,
    code: string,
    message: string,
    extra: { status?: number; retryAfterS?: number | null; body?: unknown } = {},
  ) {
    super(message);
    this.kind = kind;
    this.code = code;
    this.status = extra.status ?? 0;
    this.retryAfterS = extra.retryAfterS ?? null;
    this.body = extra.body ?? null;
  }
}
