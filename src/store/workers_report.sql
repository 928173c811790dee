INSERT INTO workers (id, host, version, address, draining, not_ready, variants)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE
SET seen = now(), draining = excluded.draining, not_ready = excluded.not_ready, variants = excluded.variants
