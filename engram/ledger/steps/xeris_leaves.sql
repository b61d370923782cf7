-- An anchor's leaves are found by their hashes, and an anchor that is held by its root.

CREATE INDEX ix_xeris_accepted_output ON xeris_accepted (signer, netuid, kind, output_hash, anchor_id);
CREATE INDEX ix_xeris_anchors_root ON xeris_anchors (signer, netuid, kind, root)
