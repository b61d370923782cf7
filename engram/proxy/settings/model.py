"""Every setting of the proxy: typed, frozen, with its unit and default.

`server`, `auth` and `services` have the keys of the original's config.json; the other sections, and keys that the
original does not have, are written in the same file or in the TOML file beside it.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from config.model import Count, CountOrOff, Netuid, Port, Seconds, Section

Size = Annotated[int, Meta(ge=0, le=1_099_511_627_776)]
"""Bytes, at most 1 TiB."""
Share = Annotated[float, Meta(ge=0, le=1)]
Milliseconds = Annotated[int, Meta(ge=1, le=600_000)]
OnClientGone = Literal["abort", "drain"]
StakeUnit = Literal["alpha", "tao", "weighted"]
CapacityProfile = Literal["lists", "booleans"]

PLACEHOLDERS: Final = ("<your-hotkey>", "your-hotkey", "5...", "")
FINNEY: Final = "wss://entrypoint-finney.opentensor.ai:443"
LOCAL_SERVICE: Final = "http://localhost:8091"


class ServerSettings(Section, frozen=True):
    """Where the proxy listens, and what it allows its clients."""

    host: str = "0.0.0.0"  # noqa: S104 -- the original's default: it is the public component
    port: Port = 8080
    """0 takes a free port."""
    reload: bool = True
    """Accepted as the original's key; settings files are always watched, and SIGHUP reads them at once."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"
    tls_certificate: str = ""
    """PEM file of the certificate chain; with `tls_key` the proxy speaks https. Reloaded when it changes."""
    tls_key: str = ""
    public_url: str = ""
    """The https URL of a front that ends TLS for this proxy; `trusted_proxies` then names the front's addresses."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) whose X-Forwarded-For is believed."""
    cors_origins: tuple[str, ...] = ()
    """Exact origins whose pages may call; empty switches CORS off."""
    max_connections: Count = 2_000
    max_connections_per_address: CountOrOff = 64
    """Open at once from one address (IPv6: one /64) that is no trusted proxy; 0 sets no bound."""
    max_header_bytes: Annotated[int, Meta(ge=1_024, le=1_048_576)] = 32_768
    max_headers: Annotated[int, Meta(ge=8, le=1_000)] = 100
    header_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 20.0
    """Seconds to wait for each further part of a request's body."""
    idle_timeout_s: Seconds = 30.0
    send_timeout_s: Seconds = 30.0
    """Seconds for a client to accept bytes of an answer."""
    drain_s: Seconds = 30.0
    """Seconds that running requests get at SIGTERM."""


class AuthSettings(Section, frozen=True, rename={"self_debug_key": "self-debug-key"}):
    """Who may call, and how requests are signed."""

    miner_hotkey: str = ""
    """SS58 address of this miner: requests must be signed for it. MINER_HOTKEY."""
    allowed_delta_ms: Milliseconds = 8_000
    """How old a signed request may be. ALLOWED_DELTA_MS."""
    future_delta_ms: Milliseconds = 2_000
    """How far ahead of this machine's clock a request may be stamped."""
    cache_duration: Seconds = 3_600.0
    """Seconds: a metagraph older than this authorizes no one. CACHE_DURATION."""
    chain_endpoint: str = FINNEY
    """JSON-RPC endpoint of the chain; wss:// is asked by https://. Empty: no chain. CHAIN_ENDPOINT."""
    netuid: Netuid = 11
    min_stake: Annotated[float, Meta(ge=0, le=1e15)] = 1_000.0
    """A caller with a validator permit passes with strictly more stake than this. MIN_STAKE_REQUIRED."""
    min_stake_url: str = ""
    """URL whose answer is the threshold, where a subnet publishes it; read every 5 minutes, the last good reading stays
    in force, also over a restart. Until the first one, `min_stake` is."""
    stake_unit: StakeUnit = "alpha"
    """`alpha`: the hotkey's alpha on the subnet; `tao`: its TAO; `weighted`: both, as the chain weights them."""
    allowed_senders: tuple[str, ...] = ()
    """SS58 addresses that pass without permit and stake."""
    denied_senders: tuple[str, ...] = ()
    """SS58 addresses that never pass."""
    self_debug_key: str = ""
    """The internal secret of POST /capacity."""
    schemes: tuple[str, ...] = ("epistula-v2", "dippy")
    """Signature schemes that are accepted."""
    lenient_schemes: tuple[str, ...] = ()
    """Those of `schemes` that also accept what the originals accept: a request that names no receiver."""
    get_body_candidates: tuple[str, ...] = ("",)
    """Bodies that a GET may have been signed over when none arrived, for clients behind a CDN that drops them."""

    def __repr__(self) -> str:
        return f"AuthSettings(miner_hotkey={self.miner_hotkey!r}, …)"  # never the internal secret


class ServicesSettings(Section, frozen=True):
    """The two backends of the original."""

    training_server_url: str = LOCAL_SERVICE
    """TRAINING_SERVER_URL"""
    inference_server_url: str = LOCAL_SERVICE
    """INFERENCE_SERVER_URL"""
    request_timeout_s: Seconds = 300.0
    """Seconds to the first byte of a backend's answer, where a route sets none. REQUEST_TIMEOUT."""


class CapacitySettings(Section, frozen=True):
    """The answer of GET /capacity."""

    profile: CapacityProfile = "lists"
    """`lists` of names by kind, or `booleans` by name, which newer orchestrators demand."""
    inference: tuple[str, ...] = ("base-h100_pcie", "img-h100_pcie")
    training: tuple[str, ...] = ("H100pcie",)


class LimitSettings(Section, frozen=True):
    """Rates and concurrency. 0 switches a rate off."""

    requests_per_minute_per_address: CountOrOff = 600
    requests_per_minute_per_key: CountOrOff = 240
    """RATE_LIMIT_PER_MINUTE."""
    concurrent_per_address: Count = 32
    """Requests whose signature is not proven yet, from one address."""
    concurrent_per_key: Count = 16
    concurrent: Count = 256
    queue: CountOrOff = 64
    """Proven requests that may wait for a place."""
    queue_s: Seconds = 10.0
    callers: Annotated[int, Meta(ge=16, le=10_000_000)] = 100_000
    """Addresses, and keys, that are counted; when all are in use a new one is refused with 503."""


class BodySettings(Section, frozen=True):
    """Request bodies."""

    max_bytes: Size = 104_857_600
    """MAX_REQUEST_SIZE."""
    memory_bytes: Size = 262_144
    """A body without Content-Digest up to this size waits for its proof in memory, a longer one in a file."""
    memory_bytes_in_all: Size = 67_108_864
    """Bytes of all bodies in memory together, of which an address has no more than it leaves free; beyond it shorter
    ones go to a file too."""
    spool_dir: str = ""
    """Folder of these files; empty: `spool` in the data folder."""
    spool_bytes: Size = 4_294_967_296
    """Bytes of all spooled bodies together, of which an address has no more than it leaves free; beyond it requests are
    refused with 503."""


class JobSettings(Section, frozen=True):
    """Requests answered 202 while the backend works on."""

    keep_s: Seconds = 3_600.0
    """Seconds that a result waits to be fetched."""
    max_result_bytes: Annotated[int, Meta(ge=1, le=67_108_864)] = 4_194_304
    kept_bytes: Size = 1_073_741_824
    """Bytes of all results together, of which a key has no more than it leaves free; beyond it new jobs get
    503."""
    open: Count = 64
    """Jobs that may run at once."""
    run_s: Seconds = 3_600.0
    """Seconds that a job may run."""


class AnswerSettings(Section, frozen=True):
    """Signed answers (Epistula version 2)."""

    sign: bool = False
    hotkey_file: str = ""
    """The miner's own hotkey: a wallet file of mode 0600."""


class BackendSettings(Section, frozen=True):
    """A group of servers that answer the same requests."""

    urls: tuple[str, ...]
    ca_file: str = ""
    """PEM file of the only authorities that are trusted for https; empty: those of the machine."""
    connections: Count = 100
    """To each server."""
    keep_alive_s: Seconds = 4.0
    """Seconds that an idle connection is kept: less than the server keeps it."""
    health_path: str = ""
    """Path that is asked every `health_interval_s` and must answer 2xx or 3xx; empty: no active check."""
    health_interval_s: Seconds = 5.0
    failures: Count = 3
    """Failures in a row after which a server is ejected."""
    eject_s: Seconds = 10.0
    """Seconds of the first ejection; each further one is twice as long, up to `eject_most_s`."""
    eject_most_s: Seconds = 300.0
    max_ejected: Share = 0.5
    """No more than this share of the servers is ejected at once."""
    breaker_failures: Count = 10
    """Failures in a row of the whole group after which its requests are refused with 503."""
    breaker_open_s: Seconds = 5.0
    """Seconds until one request tries again."""
    slow_start_s: Annotated[float, Meta(ge=0, le=86_400)] = 10.0
    """Seconds over which a server that came back takes up its full share."""


class RouteSettings(Section, frozen=True):
    """A path, and where its requests go."""

    path: str
    """An exact path, or a prefix that ends with `/*`."""
    backend: str
    """A name under `backends`, or `training` or `inference`, the two of `services`."""
    methods: tuple[str, ...] = ("POST",)
    strip_prefix: str = ""
    """Beginning of the path that the backend does not see."""
    connect_s: Seconds = 3.0
    first_byte_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0
    """Seconds from the request's last byte to the answer's first; 0: services.request_timeout_s."""
    idle_s: Seconds = 60.0
    """Seconds between parts of an answer; of a WebSocket, until a silent backend is pinged and then given up."""
    total_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0
    """Seconds for the whole request, or until an open WebSocket is closed by 1001; 0 sets no bound."""
    max_bytes: Size = 0
    """Of a request's body; 0: bodies.max_bytes."""
    on_client_gone: OnClientGone = "abort"
    """Whether the backend's connection is cut when its client leaves, or its answer is read to the end."""
    drain_s: Seconds = 60.0
    drain_bytes: Size = 67_108_864
    answer_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """A POST not answered after so many seconds becomes a job: 202 with its id. 0: never."""
    websocket: bool = False
    """Whether WebSocket handshakes are passed on."""


class ProxySettings(Section, frozen=True):
    """All settings of the proxy."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    services: ServicesSettings = ServicesSettings()
    capacity: CapacitySettings = CapacitySettings()
    limits: LimitSettings = LimitSettings()
    bodies: BodySettings = BodySettings()
    jobs: JobSettings = JobSettings()
    answers: AnswerSettings = AnswerSettings()
    backends: dict[str, BackendSettings] = msgspec.field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()

    def groups(self) -> dict[str, BackendSettings]:
        """Return every group of servers by name, the two of `services` included."""
        own = {
            "training": BackendSettings(urls=(self.services.training_server_url,)),
            "inference": BackendSettings(urls=(self.services.inference_server_url,)),
        }
        return own | self.backends

    def table(self) -> tuple[RouteSettings, ...]:
        """Return every route: those that are configured, then /train and /inference where they are not."""
        configured = {route.path for route in self.routes}
        own = (
            RouteSettings(path="/train", backend="training"),
            RouteSettings(path="/inference", backend="inference"),
        )
        return (*self.routes, *(route for route in own if route.path not in configured))
