"""The Akash backend, made from the settings."""

from pathlib import Path

from config.model import Settings
from engram.clock import Clock
from engram.http.client import HttpClient
from engram.ledger import Ledger
from engram.provisioning.akash.account import Signer, read_key_file
from engram.provisioning.akash.backend import AkashBackend
from engram.provisioning.akash.chain import Chain
from engram.provisioning.akash.endpoints import HEAD_KEPT_S, Endpoints
from engram.provisioning.akash.errors import UnusableKey
from engram.provisioning.akash.node_sdl import NODE_PORT, SERVICE
from engram.provisioning.akash.orders import order_maker, outliving
from engram.provisioning.akash.ports import AkashParts
from engram.provisioning.akash.provider import Providers
from engram.provisioning.akash.rules import Budgets
from engram.provisioning.akash.sending import Sender, SendingSettings
from engram.provisioning.akash.signing import Signing, SigningSettings
from engram.provisioning.backend_ports import BackendPorts
from engram.provisioning.errors import UnusableBackend
from engram.provisioning.model import NodeSpec
from engram.provisioning.node_backend import NodeBackend
from engram.provisioning.node_environment import environment_of, foreign_settings
from engram.sessions import TierName, rules
from engram.telemetry.metrics import Metrics


def akash_backend(ports: BackendPorts) -> NodeBackend:
    """Return the backend whose nodes run on Akash. Raises UnusableBackend. Reads the key file."""
    try:
        signer = open_signer(ports.settings)
    except UnusableKey as error:
        raise UnusableBackend(str(error)) from error
    return AkashBackend(
        make_parts(ports.settings, signer, ports.ledger, ports.ledger_id, ports.http, ports.clock, ports.metrics)
    )


def open_signer(settings: Settings) -> Signer:
    """Return the signer of the account. Raises UnusableKey, also when the key is another account's."""
    akash = settings.akash
    if not akash.key_file:
        raise UnusableKey("akash.key_file is missing: the file (mode 0600) with the key of akash.owner_address")
    signer = read_key_file(Path(akash.key_file).expanduser())
    if akash.owner_address and signer.address != akash.owner_address:
        raise UnusableKey(
            f"the key in akash.key_file is that of {signer.address}; akash.owner_address is {akash.owner_address}"
        )
    return signer


def open_chain(settings: Settings, owner: str, http: HttpClient, clock: Clock) -> Chain:
    """Return the chain as the settings name it, for one account."""
    akash = settings.akash
    urls = dict.fromkeys(url for url in (akash.node_url, *akash.endpoints) if url)
    endpoints = Endpoints(
        http,
        list(urls),
        akash.chain_id,
        clock,
        timeout_s=akash.timeout_s,
        head_kept_s=min(HEAD_KEPT_S, akash.poll_s),
    )
    return Chain(endpoints, owner)


def make_parts(
    settings: Settings,
    signer: Signer,
    ledger: Ledger,
    ledger_id: str,
    http: HttpClient,
    clock: Clock,
    metrics: Metrics,
) -> AkashParts:
    """Return all that the backend works with."""
    akash, provisioning = settings.akash, settings.provisioning
    chain = open_chain(settings, signer.address, http, clock)
    signing = Signing(chain, signer, ledger, clock, SigningSettings(chain_id=akash.chain_id, gas_price=akash.gas_price))
    common = foreign_settings(settings)
    further_s = settings.sessions.max_hours * 3600.0

    def node_environment(spec: NodeSpec) -> dict[str, str]:
        return environment_of(outliving(spec, further_s), common)

    return AkashParts(
        ledger=ledger,
        ledger_id=ledger_id,
        chain=chain,
        sender=Sender(chain, signing, ledger, clock, SendingSettings(look_s=min(0.5, akash.poll_s))),
        providers=Providers(chain, signer, clock, allow_private=akash.allow_private_providers),
        clock=clock,
        metrics=metrics,
        order_of=order_maker(akash, provisioning.miner_image, node_environment),
        service=SERVICE,
        port=NODE_PORT,
        max_price={
            TierName.LITE: akash.max_price_lite,
            TierName.STANDARD: akash.max_price_standard,
            TierName.PRO: akash.max_price_pro,
        },
        tiers=rules.tiers(settings.pricing.lite_usd_per_hour),
        places=provisioning.places or settings.sessions.live_in_all,
        budgets=Budgets(
            bids_first_s=akash.bids_first_s,
            bids_enough_s=akash.bids_enough_s,
            bids_give_up_s=akash.bids_give_up_s,
            manifest_s=akash.manifest_s,
            ready_s=akash.ready_s,
        ),
        min_reclaim_s=akash.min_reclaim_s,
        creates_per_block=akash.creates_per_block,
        poll_s=akash.poll_s,
        watch_s=akash.watch_s,
        escrow_s=akash.escrow_s,
        reconcile_s=akash.reconcile_s,
        orphan_age_s=akash.orphan_age_s,
        alarm_akt=akash.alarm_akt,
        alarm_act=akash.alarm_act,
        akt_usd=akash.akt_usd,
        mint_akt=akash.mint_akt,
        max_deposit_act=akash.max_deposit_act,
    )
