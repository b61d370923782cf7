"""What nodes on machines of others are told after their start, read from files of the operator."""

from pathlib import Path

from engram.hotkeys.passwords import line_of_file
from engram.nodes.agreement import NodeSecrets


def foreign_secrets(embedding_key_file: str) -> NodeSecrets:
    """Return the secrets; no file is named by an empty text. Raises WalletFileError when it cannot be used."""
    if not embedding_key_file:
        return NodeSecrets()
    path = Path(embedding_key_file).expanduser()
    return NodeSecrets(
        embedding_api_key=line_of_file(path, "provisioning.foreign_embedding_key_file", "key of the embedding server")
    )
