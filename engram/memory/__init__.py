"""What a memory node holds: records with content identifiers, proofs, namespaces, the store, the embedder."""
