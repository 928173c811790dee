SELECT e.*, (SELECT min(s.sent_at) FROM sent s WHERE s.position = e.position) AS sent_at,
    (SELECT a.reason FROM set_aside a WHERE a.payment_id = e.payment_id AND a.position <= e.position
     ORDER BY a.position LIMIT 1) AS set_aside
FROM events e WHERE e.payment_id = $1 ORDER BY e.position DESC LIMIT $2
