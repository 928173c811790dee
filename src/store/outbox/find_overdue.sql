SELECT n.payment_id, n.position, s.position IS NOT NULL
FROM (SELECT o.payment_id, o.position FROM overdue o
      WHERE o.position > $2 AND (get_byte(uuid_send(o.payment_id), 15) % 16)::int2 = ANY($1)
        AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = o.payment_id)
      ORDER BY o.position LIMIT $3) n
LEFT JOIN LATERAL (SELECT s.position FROM sent s WHERE s.position = n.position LIMIT 1) s ON true
ORDER BY n.position
