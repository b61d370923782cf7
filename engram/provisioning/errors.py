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


class UnusableBackend(ProvisioningError):
    """The backend cannot be made from its settings: a key that is not there, say."""


class OtherBackend(ProvisioningError):
    """Nodes of another backend are alive, which only that backend can end."""


class NodeKeyError(ProvisioningError):
    """A key cannot join, leave or be found in the pool."""
