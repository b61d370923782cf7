"""x402 payments: quotes, the 402, the payment state machine, its records, facilitators and the payment verifier."""
