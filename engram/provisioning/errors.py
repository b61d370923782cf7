"""What a backend may answer instead of a node: four words that say what is known."""


class ProvisioningError(Exception):
    """Base of this area's errors; never raised itself."""


class NoCapacity(ProvisioningError):
    """Nothing was started: there is no place for it now. Trying later may help."""


class Rejected(ProvisioningError):
    """Nothing was started, and the same request will be refused again."""


class Unavailable(ProvisioningError):
    """The backend could not be reached. Nothing was started or changed."""


class Unknown(ProvisioningError):
    """The request was sent and its outcome is not known: `inspect`, or repeat the same call, before anything else."""


class UnknownBackend(ProvisioningError):
    """The settings name a backend that this program does not have."""


class UnusableEngine(ProvisioningError):
    """The settings of a container engine name files that cannot be used."""


class OtherBackend(ProvisioningError):
    """Nodes of another backend are alive, which only that backend can end."""


class NodeKeyError(ProvisioningError):
    """A key cannot join, leave or be found in the pool."""
