"""Every setting of Engram: typed, frozen, with its unit and default.

A profile (`config/profiles/*.toml`) names all that differs between environments; what is written here are the
defaults common to all of them. Keys of the TOML files are the field names, sections are the struct fields of
`Settings`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Environment = Literal["local", "testnet", "mainnet"]
Port = Annotated[int, Meta(ge=0, le=65535)]
Netuid = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000, extra={"least": 0.001})]
"""At most a year. `least` is the smallest value that is not 0 (keys.py)."""
Hours = Annotated[float, Meta(gt=0, le=87_600, extra={"least": 0.001})]
Usd = Annotated[float, Meta(gt=0, le=1_000_000_000, extra={"least": 0.000_001})]
"""At least one atomic unit of USDC."""
UactPerBlock = Annotated[float, Meta(ge=0.01, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
CountOrOff = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1_073_741_824)]
WholeSeconds = Annotated[int, Meta(ge=1, le=31_536_000)]
BackendName = Literal["local", "docker", "akash"]
Placement = Literal["first", "cheapest"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of settings. Unknown keys are refused."""


class ShutdownSettings(Section, frozen=True):
    """What happens at SIGTERM or Ctrl-C."""

    nodes: Literal["keep", "stop"] = "keep"
    """`keep`: nodes go on and are found again at the next start; `stop`: they are stopped with the gateway, what they
    hold is kept, and the next start brings those back whose time is not up."""
    drain_s: Seconds = 10.0
    """Seconds that running requests get to finish."""


class LogSettings(Section, frozen=True):
    """Structured logs on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON otherwise."""


class BackupSettings(Section, frozen=True):
    """Copies of the ledger that the gateway makes while it runs."""

    folder: str = ""
    """Where they are kept, best on another disk; empty: none are made. A backup holds no private keys."""
    interval_s: Annotated[float, Meta(ge=60, le=31_536_000)] = 86_400.0
    """Seconds between two of them."""
    keep: Annotated[int, Meta(ge=1, le=10_000)] = 14
    """How many are kept; the oldest are removed, each time after a new one was checked."""


class LedgerSettings(Section, frozen=True):
    """Where the durable facts are kept."""

    url: str = ""
    """`postgresql://user@host:5432/database` for several gateways on one ledger; empty: a SQLite file in the data
    folder. A password belongs into a file that PGPASSFILE names, or ~/.pgpass."""
    lease_s: Annotated[float, Meta(ge=2, le=300)] = 10.0
    """A gateway that is silent on PostgreSQL for this long is taken to be gone, and others take over its work."""
    gateway_name: str = ""
    """What other gateways and `engram gateways list` call this one; empty: host name and process id."""


class OpsSettings(Section, frozen=True):
    """The operator's listener (/status, /metrics, /health, /ready); never public."""

    host: str = "127.0.0.1"
    port: Port = 9001
    """0 takes a free port."""


class HttpSettings(Section, frozen=True):
    """Bounds shared by every public HTTP surface."""

    max_body_bytes: Bytes = 262_144
    max_header_bytes: Bytes = 32_768
    max_headers: Count = 100
    body_timeout_s: Seconds = 20.0
    """The whole body must have arrived this long after the headers."""
    idle_timeout_s: Seconds = 30.0
    max_connections: Count = 2_000
    """Of one listener; fewer where the process may not open as many files."""
    max_connections_per_ip: CountOrOff = 256
    """Open at once from one address that is no trusted proxy. 0 switches the limit off."""
    requests_per_minute_per_ip: CountOrOff = 600
    """0 switches the limit off."""
    requests_per_minute_per_hotkey: CountOrOff = 240
    """0 switches the limit off."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) whose X-Forwarded-For is believed."""
    cors_origins: tuple[str, ...] = ()
    """Exact origins, or `*` for any; empty switches CORS off."""
    event_streams: Count = 1_000
    """Open server-sent event streams at once."""


class GatewaySettings(Section, frozen=True):
    """The public HTTP surface of the gateway."""

    host: str = "127.0.0.1"
    port: Port = 9000
    """0 takes a free port. GATEWAY_PORT."""
    public_url: Annotated[str, Meta(max_length=128)] = ""
    """Base URL that clients see, used in payment resources, whose header has a bound; empty: http://host:port."""
    tls_certificate: str = ""
    """PEM file of the certificate chain; with `tls_key` the gateway speaks https. Loaded again when it changes."""
    tls_key: str = ""
    """PEM file of the certificate's key."""
    auth_required: bool = True
    """GATEWAY_AUTH_REQUIRED; False trusts X-Hotkey and is refused off loopback."""
    hotkey_file: str = ""
    """The gateway's own hotkey, which phones pin: a wallet file of mode 0600, plain or encrypted. Empty:
    `<data_dir>/gateway-hotkey`, made at the first start."""
    hotkey_password_file: str = ""
    """File of mode 0600 with the password of an encrypted one; else ENGRAM_HOTKEY_PASSWORD, the file's own BT_PW_…
    variable or ENGRAM_WALLET_PASSWORD, else it is asked for on a terminal."""
    selling: bool = True
    """False: keep serving what was sold, sell nothing new (also `engram selling off`)."""
    terms_url: str = ""
    """Where the operator publishes the legal text; shown at /terms."""


class PhoneSettings(Section, frozen=True):
    """The app for buyers that the gateway serves at /app."""

    serve: Literal["auto", "on", "off"] = "auto"
    """`auto`: in `local`, and elsewhere where browsers reach the gateway by https (public_url or tls_certificate): over
    plain http they have nothing that protects keys."""
    name: Annotated[str, Meta(min_length=1, max_length=40)] = "Engram"
    """What the app calls itself."""
    accent: Annotated[str, Meta(pattern=r"^(#[0-9a-fA-F]{6})?$")] = ""
    """Color of its buttons, `#rrggbb`; empty: its own."""
    release_key: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Ed25519 public key (hex) that must have signed the app's build: `engram doctor` says so where another did. Empty:
    any build is taken."""


class PaymentSettings(Section, frozen=True):
    """How USDC is taken by x402."""

    network: str = "eip155:31337"
    """CAIP-2 id or one of x402's v1 names (`base`, `base-sepolia`). X402_NETWORK."""
    recipient: str = ""
    """0x address that is paid. X402_RECIPIENT_ADDRESS."""
    facilitator_url: str = "embedded"
    """`embedded`: the play-money facilitator in this process. X402_FACILITATOR_URL."""
    max_timeout_s: WholeSeconds = 120
    """maxTimeoutSeconds of the offer: how long a signed authorization is good for."""
    min_validity_left_s: WholeSeconds = 20
    """An authorization that expires sooner is refused before anything is asked of the facilitator."""
    verify_timeout_s: Seconds = 6.0
    settle_timeout_s: Seconds = 8.0
    answer_within_s: Seconds = 9.0
    """A paid POST is answered at the latest after this; with `payment_pending` when not yet known."""
    reserve_ttl_s: Seconds = 60.0
    """A reservation that never began to settle is given up after this."""
    holds_per_payer: Count = 3
    holds_per_address: Count = 3
    """Open holds per client IP address; loopback addresses are exempt in `local`."""
    concurrency: Count = 64
    """Payments worked on at once."""
    identifier_required: bool = False
    """Payments must bear x402's payment-identifier, a buyer's own word for one purchase; others get a 400."""
    refund_key_file: str = ""
    """File with the secret key (64 hex digits, mode 0600) that sends refunds; empty: in `local` one that is generated,
    elsewhere refunds wait for the operator. Keep no more on its address than may be lost."""
    refund_daily_usd: Usd = 500.0
    """No more than this is sent back in 24 hours; what is beyond waits."""
    early_stop_refund_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    """Part of the remaining time's price that goes back when its owner stops an active session."""
    outage_free_s: Annotated[float, Meta(ge=0, le=31_536_000, extra={"least": 0.001})] = 60.0
    """An active session's node may be down for so long in all before the time it is down is paid back."""
    refund_min_usd: Annotated[float, Meta(ge=0, le=1_000_000_000, extra={"least": 0.000_001})] = 0.01
    """Smaller parts of a payment are not sent back; a whole payment always is."""
    rpc_url: str = ""
    """JSON-RPC of the network's chain, which proves what became of a payment. Empty: the facilitator's word
    counts, and `testnet` and `mainnet` say so at start. X402_RPC_URL."""
    rpc_timeout_s: Seconds = 5.0
    confirmations: Count = 12
    """Blocks after which the chain's word is final."""
    supported_interval_s: Seconds = 60.0
    """The facilitator's /supported is read this often."""
    breaker_failures: Count = 5
    """So many failures of the facilitator in a row and it is left alone for a while."""
    breaker_open_s: Seconds = 10.0
    """How long it is left alone before one request tries again."""


class PricingSettings(Section, frozen=True):
    """What an hour costs."""

    lite_usd_per_hour: Positive = 0.10
    """CLOUD_PRICE_PER_HOUR_USD; standard is twice, pro 3.6 times of it."""


class SessionSettings(Section, frozen=True):
    """Limits on sessions."""

    min_hours: Hours = 0.5
    max_hours: Hours = 720.0
    live_per_hotkey: Count = 3
    live_in_all: Count = 50


class ProvisioningSettings(Section, frozen=True):
    """Where nodes run."""

    backend: BackendName = "local"
    """The one backend, where `backends` names none."""
    backends: tuple[BackendName, ...] = ()
    """Several backends at once, the preferred one first; each has its own places, and one that is down does not stop
    the others. Wins over `backend`."""
    placement: Placement = "first"
    """Where a node is placed: with the `first` backend that has room, or the `cheapest` one."""
    places: CountOrOff = 0
    """Local backend: nodes that may run at once; 0: what fits the host."""
    node_host: str = "127.0.0.1"
    first_port: Annotated[int, Meta(ge=1, le=64_536)] = 18_100
    """Local backend: ports first_port … first_port + 999 are given to nodes."""
    launch_timeout_s: Seconds = 120.0
    """From launch to the first healthy answer, per attempt."""
    attempts: Count = 3
    lost_after_s: Annotated[float, Meta(ge=60, le=604_800)] = 3_600.0
    """A session that was active and has had no node for this long ends, and the rest of its price goes back."""
    health_interval_s: Seconds = 0.25
    destroy_grace_s: Seconds = 8.0
    """TERM, then KILL after this."""
    watch_interval_s: Seconds = 2.0
    """Memory and disk of local nodes are measured this often."""
    announce: bool = False
    """Announces nodes on machines of others on the chain (serve_axon), where their address has a port of its own; each
    is signed by the node's hotkey, which must be registered on `miner.netuid`. Local nodes: `miner.announce`."""
    commit_addresses: bool = False
    """Commits where nodes on machines of others serve (`address:port`, host names too) to the registry of
    `miner.netuid`, once an epoch at most; each is signed by the node's hotkey, which must be registered there. Local
    nodes: `engram registry register`."""
    foreign_embedding_key_file: str = ""
    """File of mode 0600 with a key of the embedding server for nodes on machines of others, whose providers can read it
    there: name one that is limited and can be revoked. OPENAI_API_KEY is never sent to them."""
    miner_image: str = "ghcr.io/dipraise1/engram:latest"
    """ENGRAM_MINER_IMAGE."""

    @property
    def chosen(self) -> tuple[BackendName, ...]:
        """The backends in use, the preferred one first."""
        return self.backends or (self.backend,)


class DockerSettings(Section, frozen=True):
    """The Docker engine that runs nodes."""

    host: str = "unix:///var/run/docker.sock"
    """Address of the engine: unix:///path or tcp://host:port."""
    tls_ca: str = ""
    """PEM file of the authority that signed the certificate of an engine behind TLS; empty: no TLS."""
    tls_certificate: str = ""
    """PEM file of the certificate that is shown to an engine behind TLS."""
    tls_key: str = ""
    """PEM file of its key."""
    places: CountOrOff = 0
    """Nodes that may run at once; 0: what fits the engine's machine."""
    first_port: Annotated[int, Meta(ge=1, le=64_536)] = 28_100
    """Ports first_port … first_port + 999 of the engine's machine are given to nodes."""
    node_host: str = ""
    """Name or address at which clients reach nodes; empty: provisioning.node_host where the engine is on this machine,
    else the host of `host`."""
    network: str = ""
    """Network that containers join; empty: the engine's default one."""
    node_keys: Literal["auto", "hotkey", "session"] = "auto"
    """What a node signs with: its `hotkey`, which is put into its container, or a `session` key that the gateway
    certifies, for machines of others. auto: `hotkey` where the engine is on this machine."""
    lite_usd_per_hour: Annotated[float, Meta(ge=0, le=1_000_000, extra={"least": 0.000_001})] = 0.0
    """What an hour of the smallest node costs you there, for `placement = "cheapest"`; larger ones in proportion."""


class AkashSettings(Section, frozen=True):
    """The Akash network. Prices are in uact (a millionth of an ACT, which is worth a dollar) a block of about 6.1 s."""

    owner_address: str = ""
    """AKASH_OWNER_ADDRESS"""
    node_url: str = ""
    """AKASH_NODE_URL. REST endpoint that is asked before `endpoints`."""
    endpoints: tuple[str, ...] = (
        "https://rpc.akt.dev/rest",
        "https://api.akashnet.net",
        "https://akash-api.polkachu.com",
        "https://rest-akash.ecostake.com",
        "https://akash-rest.publicnode.com",
    )
    """REST endpoints of the chain. With two or more, none alone is believed in what costs money or a memory: that
    something is not there, that a lease has ended or costs otherwise, who a provider is, what became of a transaction.
    With three, one that lies is outvoted."""
    chain_id: str = "akashnet-2"
    """AKASH_CHAIN_ID"""
    key_file: str = ""
    """File of mode 0600 with the mnemonic or the key (64 hex digits) of `owner_address`: it signs what is deployed."""
    gas_price: Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$")] = "0.025"
    """uakt for each gas."""
    max_price_lite: UactPerBlock = 30.0
    """The highest bid that is accepted for a node of the tier lite, and never more than the tier sells for."""
    max_price_standard: UactPerBlock = 60.0
    max_price_pro: UactPerBlock = 120.0
    auditors: tuple[str, ...] = ("akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63",)
    """A provider must be signed for by one of them; empty: by none."""
    region: str = ""
    """Attribute `region` that is asked of providers first; without bids it is dropped."""
    storage_class: Literal["beta1", "beta2", "beta3"] = "beta3"
    """Kind of a node's volume: hard disk, SSD, NVMe."""
    min_reclaim_s: Annotated[int, Meta(ge=3_600, le=2_592_000)] = 3_600
    """The notice that is asked of providers before they take their machine back; without bids it is dropped."""
    bids_first_s: Seconds = 10.0
    """Bids are not chosen from earlier than this after a deployment is on chain."""
    bids_enough_s: Seconds = 45.0
    """From here on one bid is enough; before, three are."""
    bids_give_up_s: Seconds = 120.0
    manifest_s: Seconds = 60.0
    """For a provider to take the manifest."""
    ready_s: Seconds = 300.0
    """For a provider to start the node."""
    timeout_s: Seconds = 8.0
    """For an answer of one endpoint."""
    creates_per_block: Count = 10
    """Deployments created in one block: an outage of one provider does not flood the others."""
    poll_s: Seconds = 2.0
    """Between looks at bids, manifests and nodes that start."""
    watch_s: Seconds = 30.0
    """Between looks at leases, and at what providers say of the nodes."""
    escrow_s: Seconds = 600.0
    """Between looks at the escrows."""
    reconcile_s: Seconds = 300.0
    """Between comparisons of the chain with the ledger."""
    orphan_age_s: Seconds = 900.0
    """A deployment with a number of this ledger that the ledger does not know is closed at this age."""
    alarm_akt: Annotated[float, Meta(ge=0, le=1_000_000_000)] = 10.0
    """Fees are paid in AKT: below this there is an alarm."""
    alarm_act: Annotated[float, Meta(ge=0, le=1_000_000_000)] = 20.0
    """Deployments are paid in ACT: below this, less what sold sessions still need, there is an alarm."""
    akt_usd: Annotated[float, Meta(ge=0.001, le=1_000_000)] = 1.0
    """Your price of one AKT in US dollars, by which fees, which are paid in AKT, are added to costs."""
    mint_akt: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """AKT that are burned for ACT when there is less than `alarm_act`; the network mints no less than 10 ACT, and
    refunds what comes to less. 0: none."""
    max_deposit_act: Annotated[float, Meta(ge=0.5, le=1_000_000)] = 50.0
    """The most that the escrow of one deployment holds at once. It is filled up as it drains; `akash_escrow_capped` in
    the log names one whose session needs more: it ends early if the gateway is gone for long."""
    allow_private_providers: bool = False
    """Whether providers at private addresses may be used, as on a private copy of the network."""


class StatsSettings(Section, frozen=True):
    """How live nodes are polled."""

    interval_s: Seconds = 30.0
    jitter: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    """Share of the interval that each poll is moved at random."""
    concurrency: Count = 256
    """Polls under way at once. One in five nodes may hang without delaying the polls of 5,000."""
    connect_timeout_s: Seconds = 3.0
    timeout_s: Seconds = 5.0
    failures_to_degraded: Count = 5
    expiry_interval_s: Seconds = 5.0
    """How often sessions that have run out are looked for."""


class ChainSettings(Section, frozen=True):
    """The Bittensor chain."""

    source: Literal["recorded", "rpc"] = "rpc"
    """`recorded`: the chain recording that ships with Engram."""
    network: str = "test"
    endpoints: tuple[str, ...] = ()
    """JSON-RPC URLs (http or https), tried in order."""
    netuids: tuple[Netuid, ...] = (450,)
    poll_s: Seconds = 12.0
    call_timeout_s: Seconds = 15.0
    stall_after_s: Seconds = 60.0
    """A finalized head that has not advanced for this long is taken for stuck: the next endpoint is asked."""
    reset_after_s: Annotated[float, Meta(ge=0, le=31_536_000, extra={"least": 0.001})] = 0.0
    """When nothing that descends from the newest block could be taken for this long, begin again at the finalized head
    that is there: where a node was restarted on another fork or from an older block. With several endpoints two must
    have it. 0: only at a restart of the process."""


class RelaySettings(Section, frozen=True):
    """What is learned of managed nodes, relayed to another network."""

    url: str = ""
    """Receiver; empty: the relay is off and nothing is queued."""
    original_receiver: bool = False
    """The receiver may be one of the original, which takes engram-v1 alone and signs nothing: it is sent to as that
    when it answers 404, 405, 410 or 501 to GET /schemas. Otherwise such a receiver is held back."""
    receiver_key: str = ""
    """Key (ss58) that must have signed the receiver's acknowledgements; empty: whichever key an answer names, which the
    start, `engram doctor` and the status warn of, and which mainnet refuses without https. The one of the last
    acknowledgement is shown in the status."""
    timeout_s: Seconds = 10.0
    attempts: Count = 10
    backoff_min_s: Seconds = 10.0
    backoff_max_s: Seconds = 300.0
    round_s: Seconds = 600.0
    """How often what was learned of the managed nodes is queued."""
    pending_max: Annotated[int, Meta(ge=1, le=10_000_000)] = 200_000
    """Payloads that may wait to be sent; what is refused beyond it is logged and counted."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Streams that are sent to the receiver at once; within a stream there is one payload at a time."""
    log_days: Annotated[int, Meta(ge=1, le=3_650)] = 30
    """Days for which the log of all attempts is kept."""
    confirmations: Annotated[int, Meta(ge=0, le=1_000)] = 3
    """Blocks that must stand above a payload's block at the best head, which must be final besides."""
    anchor: bool = True
    """Commit the root of the delivered outputs to the chain once an epoch; the hotkey's other commitments are kept. A
    validator in a dry run commits nothing, nor does a gateway whose hotkey is not registered on the subnet."""
    quorum: Annotated[int, Meta(ge=1, le=64)] = 2
    """Validators that must have signed scores, or a ranking, before these are relayed, this one among them. 1: it
    relays its own alone, which a receiver sees."""
    peers: tuple[str, ...] = ()
    """Addresses of other validators, used instead of those they announce on the chain: a hotkey (ss58), a space, and
    a URL."""
    turn_blocks: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Blocks after which the next validator proposes its scores and its ranking."""
    compare_blocks: Annotated[int, Meta(ge=1, le=10_000)] = 150
    """A proposal is held against the own rounds that are at most so many blocks away."""
    recall_tolerance: Annotated[float, Meta(ge=0, le=1)] = 0.25
    """How far a proposed recall may lie outside what was measured."""
    proof_rate_tolerance: Annotated[float, Meta(ge=0, le=1)] = 0.5
    latency_tolerance_ms: Annotated[float, Meta(ge=0, le=60_000)] = 500.0
    missing_tolerance: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Share of the miners that only one of two validators may have measured."""
    weight_tolerance: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How far a miner's weight in a proposed ranking may lie outside those that were set here, as a share of them; a
    hundredth of all weights at least."""
    tool_url: str = ""
    """An MCP server, one tool of which is called for each round of memory payloads; what it says is signed with them.
    Empty: none."""
    tool: str = ""
    """The tool's name; it is called with `netuid` and `block`."""
    tool_token_file: str = ""
    """File with the bearer token for that server; empty: none is sent."""
    tool_timeout_s: Seconds = 5.0
    """For the whole call; a round then goes on without it."""


SchemaVersion = Literal["engram-v1", "engram-v2"]


class XerisSettings(Section, frozen=True):
    """A receiver of what gateways and validators relay."""

    host: str = "127.0.0.1"
    port: Port = 9600
    netuids: tuple[Netuid, ...] = (450,)
    """Subnets whose validators it takes scores of."""
    gateways: tuple[str, ...] = ()
    """Hotkeys (ss58) of the gateways whose memory payloads it takes."""
    quorum: Annotated[int, Meta(ge=1, le=64)] = 2
    """Distinct validators that must have signed a scores payload."""
    keep_days: Annotated[int, Meta(ge=1, le=3_650)] = 30
    """Days for which payloads are kept; older ones are refused."""
    anchor_epochs: Annotated[int, Meta(ge=1, le=1_000)] = 2
    """Epochs after which a payload that is not anchored on the chain is marked as overdue."""
    archive_endpoints: tuple[str, ...] = ()
    """Endpoints that keep the state of every block of the same chain, asked who held a permit, and what was committed,
    at blocks that `chain.endpoints` have forgotten."""
    schema_versions: tuple[SchemaVersion, ...] = ("engram-v1", "engram-v2")
    """Which versions of payloads it takes, as it says at GET /schemas."""
    log_days: Annotated[int, Meta(ge=1, le=3_650)] = 90
    """Days for which the log of submissions is kept, refused ones too."""
    submission_usd: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    """What an accepted payload costs its signer, paid beforehand by `payments` (x402); 0: nothing."""
    submissions_a_payment: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    """So many submissions are bought at once."""
    public_url: str = ""
    """Where it is reached from outside, for offers and for agents; empty: the address it listens on."""
    mcp_open_to: Literal["loopback", "anyone"] = "loopback"
    """Which agents read over MCP without a token; all others need one that a hotkey signed (`engram mcp token`)."""
    mcp_callers: tuple[str, ...] = ()
    """The only hotkeys (ss58) whose tokens are taken; empty: those of any hotkey."""
    mcp_hosts: tuple[str, ...] = ()
    """Names that agents reach it by (name, or name:port), beside that of `public_url` and loopback names."""


class ValidatorSettings(Section, frozen=True):
    """A validator: how it asks miners, and whether it sets weights."""

    netuid: Netuid = 450
    host: str = "127.0.0.1"
    port: Port = 9500
    """Where other validators ask for signatures on their scores; served while `relay.url` is set and `relay.quorum` is
    above 1. 0 takes a free port."""
    hotkey_file: str = ""
    """The validator's hotkey: a wallet file of mode 0600, plain or encrypted."""
    hotkey_password_file: str = ""
    """File with the password of an encrypted hotkey."""
    dry_run: bool = True
    """Score, and write down the weights that would be set, but send nothing to the chain."""
    round_s: Seconds = 600.0
    """From one round to the next."""
    deadline_s: Seconds = 120.0
    """For a whole round: a miner that has not answered by then has not answered."""
    timeout_s: Seconds = 15.0
    """For one answer of a miner."""
    concurrency: Count = 64
    """Miners asked at once; one that takes longer than two seconds no longer counts."""
    queries: Count = 4
    """Searches a miner and round."""
    challenges: Count = 2
    """Storage proofs a miner and round."""
    decoys: Annotated[int, Meta(ge=0, le=10)] = 2
    """Searches, and as many challenges, a miner and round by the validator's own hotkey about records that the miner
    lists of its customers. They earn nothing: they keep a miner from telling what is planted by what is asked."""
    planted: Count = 20
    """Records planted at most a miner and round. Each is deleted again after 2 to `planted_rounds` rounds."""
    planted_rounds: Annotated[int, Meta(ge=3, le=1_000)] = 24
    planted_words: str = ""
    """TOML file with the words and sentences that planted records are made of; empty: the published ones, by which a
    miner that knows the source can tell planted records from its customers'."""
    least_planted: Annotated[int, Meta(ge=5, le=10)] = 5
    """A miner is asked about a matter only when it should hold this many planted records of it, and only questions of
    which this many of the 10 right answers are planted: so many are not public."""
    unasked_rounds: Annotated[int, Meta(ge=3, le=10)] = 6
    """A miner of which nothing can be asked in so many rounds in a row scores 0 from then on: its average says nothing
    any more of what it stores."""
    share_scores: bool = True
    """Miners of one coldkey, or that answer at one address, share one score."""
    history_rounds: Annotated[int, Meta(ge=10, le=100_000)] = 1_000
    """Rounds kept for `engram validator explain`."""
    private_addresses: bool = False
    """Ask miners at addresses that are not public, for a subnet on one machine. Refused on mainnet."""
    ground_truth: str = ""
    """The public ground-truth file (JSON lines, at most 500). Every miner is given its records, 25 a round, and they
    count among the right answers from then on; empty: every right answer is a planted record."""
    blacklist: tuple[str, ...] = ()
    """Miners that are never asked and get no weight: a hotkey (ss58), a space, and why."""


class WorkerSettings(Section, frozen=True):
    """A worker: it connects to an orchestrator and runs the jobs that it is sent."""

    orchestrator_url: str = ""
    """Where the orchestrator answers, such as https://orchestrator.example.com."""
    socketio_path: Annotated[str, Meta(pattern=r"^/[!-~]{0,200}$")] = "/socket.io/"
    netuid: Netuid = 450
    network: str = ""
    """Network on which the hotkey must be registered on `netuid` (finney, test, or a URL); empty: it is not checked."""
    wallet_name: str = "default"
    """Wallet in ~/.bittensor/wallets whose hotkey signs."""
    hotkey_name: str = "default"
    hotkey_file: str = ""
    """The hotkey's own file, in place of the wallet's."""
    hotkey_password_file: str = ""
    """File of mode 0600 with the password of an encrypted hotkey."""
    inference_url: str = ""
    """Backend that jobs of the type `inference` are posted to; empty: there are none."""
    training_url: str = ""
    """The same for `training`."""
    repeatable: tuple[Literal["inference", "training"], ...] = ()
    """Types whose backend runs a job once however often it is posted with the same Idempotency-Key. Only these are
    posted again when it is unknown whether they were done."""
    kinds: tuple[str, ...] = ()
    """Further types of jobs, as NAME=module:attribute."""
    release_gpu_memory: bool = False
    """Give what torch caches back to the GPU whenever no job runs any more; for `kinds` that have torch loaded."""
    concurrency: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """Jobs that run at once."""
    waiting: Annotated[int, Meta(ge=0, le=100_000)] = 1_000
    """Jobs that may wait for a place; what comes beyond is refused."""
    job_s: Seconds = 3_600.0
    """A job that takes longer is ended, and its outcome is unknown."""
    drain_s: Seconds = 30.0
    """Seconds that running jobs get to finish when the worker is stopped."""
    connect_s: Seconds = 10.0
    """For each step of connecting: the connection, its handshake, the session."""
    auth_s: Annotated[float, Meta(ge=0, le=3_600, extra={"least": 0.001})] = 0.0
    """Seconds within which the orchestrator must answer `auth_success`; 0: it answers nothing, and is not waited
    for."""
    send_s: Seconds = 20.0
    """An orchestrator that takes nothing for so long is given up."""
    backoff_min_s: Seconds = 0.5
    backoff_max_s: Seconds = 30.0
    steady_s: Seconds = 10.0
    """A connection that was held for so long makes the next one begin with the shortest wait again."""
    max_message_bytes: Bytes = 1_048_576
    """Of a message of the orchestrator, its attachments together."""
    max_result_bytes: Bytes = 1_000_000
    """Of a result; a larger one is replaced by an error."""
    results: Literal["event", "ack"] = "event"
    """How results of jobs with an id count as delivered: when the event `job_result` was acknowledged, or once the
    job's own acknowledgement was sent."""
    ack_s: Seconds = 10.0
    """Seconds within which `job_result` should be acknowledged."""
    resend_s: Seconds = 30.0
    """Results that were not acknowledged are sent again after this, then ever more seldom, and at each connection."""
    unacknowledged: Count = 10_000
    """Results that may wait for their acknowledgement; jobs with an id beyond it are refused."""
    reconcile_s: Annotated[float, Meta(ge=0, le=86_400, extra={"least": 0.001})] = 60.0
    """Seconds between requests for jobs that never arrived here; 0, or `results` = ack: none are made."""
    keep_s: Seconds = 86_400.0
    """Seconds that a job is kept after its result was acknowledged, so that it is not run again when it is sent
    again."""


class FacilitatorSettings(Section, frozen=True):
    """The play-money facilitator (`run.py facilitator`, or embedded in a `local` gateway)."""

    host: str = "127.0.0.1"
    port: Port = 0
    """0 takes a free port."""
    opening_balance_usd: Usd = 1_000.0
    """Play money that every address owns when it is first seen."""


class MinerSettings(Section, frozen=True):
    """What a memory miner (a node) is told besides its launch file."""

    embedder: Literal["minilm", "openai", "hash"] = "minilm"
    """What makes vectors of texts: all-MiniLM-L6-v2 (384 numbers), a server that answers as OpenAI's /v1/embeddings, or
    word hashes without meaning, for tests. A launch file that names an embedder wins."""
    weights: Literal["installed", "hub"] = "installed"
    """Where the files of all-MiniLM-L6-v2 come from when `weights_dir` names no folder: the installed package, or
    downloaded from `hub_url` into `cache_dir`. Only the published files are taken, by SHA-256."""
    weights_dir: str = ""
    """Folder with model.safetensors and tokenizer.json."""
    hub_url: str = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main"
    """Where model.safetensors and tokenizer.json are downloaded from, when `weights` is hub."""
    cache_dir: str = ""
    """Where the built ONNX graph and downloaded weights are kept; empty: `<data_dir>/cache`."""
    embedding_url: str = ""
    """For `openai`: such as https://api.openai.com/v1. Its key is read from the variable OPENAI_API_KEY."""
    embedding_model: str = ""
    """For `openai`: such as text-embedding-3-small."""
    embedding_dimension: Annotated[int, Meta(ge=0, le=8_192)] = 0
    """For `openai`: how many numbers a vector of that model has."""
    require_signature: bool = False
    """REQUIRE_HOTKEY_SIG; always on for mainnet."""
    netuid: Netuid = 450
    hotkey_password_file: str = ""
    """File of mode 0600 with the password of encrypted hotkeys of nodes; else ENGRAM_HOTKEY_PASSWORD, a file's own
    BT_PW_… variable or ENGRAM_WALLET_PASSWORD, else it is asked for on a terminal. The nodes of a gateway have this
    file alone."""
    announce: str = ""
    """Where validators reach the node, as IPv4, IPv4:PORT, IPv6 or [IPv6]:PORT (no port: its own): kept on the chain by
    serve_axon, signed by the node's hotkey. Empty: nothing is announced."""
    max_text_chars: Count = 8_192
    max_metadata_bytes: Count = 4_096
    windows: Literal["behind", "before", "off"] = "behind"
    """Texts beyond what one vector covers are embedded window by window, so that a search with a `mode` finds all of
    them: behind the answer to an ingest, before it (which takes 0.1 s a window), or not at all."""
    requests_per_minute: CountOrOff = 6_000
    tenants: Literal["controller", "anyone"] = "controller"
    """Who may have private namespaces here: the controller of the launch file, or every key for itself."""
    private_bucket_ms: Annotated[int, Meta(ge=0, le=10_000)] = 100
    """Answers about private namespaces are given at multiples of this after their arrival; 0: as soon as they are
    ready, which tells by its time what was done."""
    private_noise_sigma: Annotated[float, Meta(ge=0, le=100, extra={"least": 0.000_001})] = 0.0
    """Standard deviation of Gaussian noise on each number of private vectors (of length 1) before they are stored;
    0: none. What leaves search usable protects nothing: /health tells its epsilon."""
    controller_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Part of the node's storage that nobody but its controller may fill; 0: whoever stores first has it all."""
    ops_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Loopback port of /metrics and of the admin calls; 0 takes a free one, noted in `ops.json` of the data folder."""


class Settings(Section, frozen=True):
    """All settings of one process."""

    environment: Environment = "local"
    data_dir: str = "data"
    """Folder of the ledger, keys and nodes; one process at a time."""
    shutdown: ShutdownSettings = ShutdownSettings()
    log: LogSettings = LogSettings()
    backup: BackupSettings = BackupSettings()
    ledger: LedgerSettings = LedgerSettings()
    ops: OpsSettings = OpsSettings()
    http: HttpSettings = HttpSettings()
    gateway: GatewaySettings = GatewaySettings()
    phone: PhoneSettings = PhoneSettings()
    payments: PaymentSettings = PaymentSettings()
    pricing: PricingSettings = PricingSettings()
    sessions: SessionSettings = SessionSettings()
    provisioning: ProvisioningSettings = ProvisioningSettings()
    docker: DockerSettings = DockerSettings()
    akash: AkashSettings = AkashSettings()
    stats: StatsSettings = StatsSettings()
    chain: ChainSettings = ChainSettings()
    relay: RelaySettings = RelaySettings()
    validator: ValidatorSettings = ValidatorSettings()
    xeris: XerisSettings = XerisSettings()
    worker: WorkerSettings = WorkerSettings()
    facilitator: FacilitatorSettings = FacilitatorSettings()
    miner: MinerSettings = MinerSettings()
