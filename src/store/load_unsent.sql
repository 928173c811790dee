SELECT e.payment_id, e.position, e.id, e.event_type, e.routing_key, e.body, e.correlation_id,
       e.traceparent, e.tracestate, e.reply_to, e.reply_correlation_id,
       e.stored > now() - interval '250 ms' AS is_fresh
FROM events e WHERE e.payment_id = ANY($1)
  AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
  AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = e.payment_id)
UNION ALL
SELECT DISTINCT a.payment_id, NULL::int8, NULL::uuid, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL::bool
FROM set_aside a WHERE a.payment_id = ANY($1)
ORDER BY position
