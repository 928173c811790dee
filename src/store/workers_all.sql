SELECT id, host, version, address, started, seen, draining, not_ready, variants, now() AS read_at
FROM workers
ORDER BY host, started, id
