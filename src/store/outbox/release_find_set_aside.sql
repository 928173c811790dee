SELECT a.reason, a.at,
    (SELECT count(*) FROM events e WHERE e.payment_id = $1
     AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position))
FROM set_aside a WHERE a.payment_id = $1 ORDER BY a.position LIMIT 1
