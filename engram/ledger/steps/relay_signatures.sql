-- A key signs one output of a validator a block, whatever its uid is: the first of each block counts, or what was co-signed.

INSERT INTO relay_signatures (netuid, kind, block, source, signer, output_hash, at)
SELECT netuid, kind, block, '', signer, output_hash, at
FROM relay_signatures
WHERE kind IN ('scores', 'ranking') AND source <> ''
ORDER BY at
ON CONFLICT DO NOTHING;
DELETE FROM relay_signatures WHERE kind IN ('scores', 'ranking') AND source <> ''
