"""Why a transaction pool refuses an extrinsic: the error's name, its meaning, and what to do.

| what the pool answers                                            | the name                                        |
|------------------------------------------------------------------|-------------------------------------------------|
| `{"invalid":{"custom":10}}`, `Custom error: 10`                   | CUSTOM_NAMES; subtensor's own checks            |
| `{"invalid":"badProof"}`, `{"invalid":{"badProof":null}}`, `{"unknown":"cannotLookup"}` | the word itself          |
| a sentence of substrate's                                        | the word of that sentence (SENTENCES)           |
| another code than 1010 and 1011                                  | POOL_CODES                                      |

Sources: substrate, InvalidTransaction, UnknownTransaction and rpc-api author errors; subtensor, CustomTransactionError.
"""

import re
from types import MappingProxyType
from typing import Final

from engram.chain.errors import CallRefused, SubmitRefused

_INVALID: Final = frozenset({1010, 1011})
_CUSTOM: Final = re.compile(r"(?:Custom error: |\"custom\"\s*:\s*)([0-9]{1,3})\b", re.IGNORECASE)
_WORD: Final = re.compile(r"(?:\"(?:invalid|unknown)\"\s*:\s*\{?\s*\"|(?:Invalid|Unknown)Transaction::)([A-Za-z]+)")
"""The word of a variant, as JSON or as Rust writes it."""
_UNKNOWN: Final = re.compile(r"\"unknown\"|UnknownTransaction", re.IGNORECASE)

POOL_CODES: Final = MappingProxyType(
    {
        1001: "badFormat",
        1002: "verificationError",
        1012: "banned",
        1013: "alreadyImported",
        1014: "priorityTooLow",
        1015: "cycleDetected",
        1016: "immediatelyDropped",
        1018: "unactionable",
    }
)

CUSTOM_NAMES: Final = MappingProxyType(
    {
        0: "ColdkeySwapAnnounced",
        1: "StakeAmountTooLow",
        2: "BalanceTooLow",
        3: "SubnetNotExists",
        4: "HotkeyAccountDoesntExist",
        5: "NotEnoughStakeToWithdraw",
        6: "RateLimitExceeded",
        7: "InsufficientLiquidity",
        8: "SlippageTooHigh",
        9: "TransferDisallowed",
        10: "HotKeyNotRegisteredInNetwork",
        11: "InvalidIpAddress",
        12: "ServingRateLimitExceeded",
        13: "InvalidPort",
        14: "ZeroMaxAmount",
        15: "InvalidRevealRound",
        16: "CommitNotFound",
        17: "CommitBlockNotInRevealRange",
        18: "InputLengthsUnequal",
        19: "UidNotFound",
        20: "EvmKeyAssociateRateLimitExceeded",
        21: "ColdkeySwapDisputed",
        22: "InvalidRealAccount",
        23: "FailedShieldedTxParsing",
        24: "InvalidShieldedTxPubKeyHash",
        255: "BadRequest",
    }
)
"""Errors of subtensor's own checks in the pool. From 25 on, runtimes number them differently."""

SENTENCES: Final = MappingProxyType(
    {
        "call is not expected": "call",
        "inability to pay": "payment",
        "valid in the future": "future",
        "outdated": "stale",
        "bad signature": "badProof",
        "ancient birth block": "ancientBirthBlock",
        "exhaust the block limits": "exhaustsResources",
        "exhaust the resources": "exhaustsResources",
        "labelled as mandatory": "badMandatory",
        "dispatch is mandatory": "mandatoryValidation",
        "invalid signing address": "badSigner",
        "implicit data was unable": "indeterminateImplicit",
        "did not authorize any origin": "unknownOrigin",
        "could not lookup information": "cannotLookup",
        "could not find an unsigned validator": "noUnsignedValidator",
    }
)
"""Sentences that some nodes send in place of the JSON name."""

ADVICE: Final = MappingProxyType(
    {
        "call": "the runtime takes no such call now: its version or its settings forbid it",
        "payment": "the account cannot pay the fee: send TAO to the key that signs",
        "future": "an earlier transaction of this key is missing: wait until it is in a block, or send it again",
        "stale": "another transaction of this key came first: run the command again",
        "badProof": "the signature is not valid on this chain: check that --network and the endpoint are of one chain, "
        "and run the command again if the runtime was just upgraded",
        "ancientBirthBlock": "it was signed too many blocks ago, or the endpoint is on another chain: run it again",
        "exhaustsResources": "the next block is full: run the command again in a minute",
        "badSigner": "this key may not make this call: check which key the call needs, hotkey or coldkey",
        "indeterminateImplicit": "the endpoint could not check what was signed: try another endpoint",
        "unknownOrigin": "the runtime does not take this kind of signature: check that Engram supports this runtime",
        "cannotLookup": "the endpoint does not know the account or the block that was signed for: try another endpoint",
        "banned": "the pool refused this very transaction shortly before: wait half an hour, or use another endpoint",
        "priorityTooLow": "another transaction with this nonce waits in the pool: wait until it is in a block",
        "immediatelyDropped": "the endpoint's pool is full: run the command again in a minute, or use another endpoint",
        "verificationError": "the endpoint's runtime failed while checking it: try another endpoint",
        "ColdkeySwapAnnounced": "the coldkey is about to be swapped and can send nothing until then",
        "ColdkeySwapDisputed": "the swap of the coldkey is disputed; it can send nothing until that is settled",
        "BalanceTooLow": "the coldkey has too little TAO for this",
        "SubnetNotExists": "the network has no such subnet: check --netuid and --network",
        "HotkeyAccountDoesntExist": "the hotkey is not registered anywhere: engram subnet register",
        "RateLimitExceeded": "too many of these calls in too few blocks: wait and run the command again",
        "HotKeyNotRegisteredInNetwork": "the hotkey is not registered on this subnet: engram subnet register",
        "InvalidIpAddress": "the chain does not accept this address",
        "ServingRateLimitExceeded": "the last announcement is too few blocks old: engram subnet status, then wait",
        "InvalidPort": "the chain does not take this port: 1 to 65535",
        "InvalidRevealRound": "the drand round is over or too far ahead: check this machine's clock",
        "CommitNotFound": "the chain holds no such commit: it was revealed, has expired, or was never included",
        "CommitBlockNotInRevealRange": "too early or too late: engram subnet reveal-weights shows the window",
        "UidNotFound": "the subnet has no such uid (any more)",
        "BadRequest": "the runtime refuses it without saying why",
    }
)


def pool_refusal(refused: CallRefused) -> SubmitRefused:
    """Translate a pool's error object, by the runtime's own name where there is one; its text is kept."""
    name = _name(refused)
    advice = ADVICE.get(name, "")
    if name.startswith("custom error"):
        advice = "a check of the runtime's own: see CustomTransactionError in the source of this runtime's version"
    return SubmitRefused(name, refused.message, advice)


def _name(refused: CallRefused) -> str:
    text = refused.message
    if refused.code not in _INVALID:
        return POOL_CODES.get(refused.code, f"code {refused.code}")
    custom = _CUSTOM.search(text)
    if custom is not None:
        unnamed = f"custom error {int(custom[1])}"
        return unnamed if _UNKNOWN.search(text) else CUSTOM_NAMES.get(int(custom[1]), unnamed)
    lowered = text.lower()
    named = next((word for sentence, word in SENTENCES.items() if sentence in lowered), None)
    if named is not None:
        return named
    word = _WORD.search(text)
    return word[1][0].lower() + word[1][1:] if word else "invalid"
