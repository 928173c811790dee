WITH next AS (
    SELECT payment_id, accepted, state, command_type, stored FROM operations
    WHERE accepted > $3
      AND (SELECT stored FROM operations WHERE accepted > $3 ORDER BY accepted LIMIT 1) < $1
    ORDER BY accepted LIMIT $2),
old AS (
    SELECT accepted, state = 'settled'
        AND (command_type = 'payment.notification' OR p.id IS NULL OR p.archived_at IS NOT NULL) AS goes FROM next
    LEFT JOIN LATERAL (SELECT p.id, p.archived_at FROM payments p WHERE p.id = next.payment_id LIMIT 1) p ON true
    WHERE accepted < coalesce((SELECT min(accepted) FROM next WHERE stored >= $1), 9223372036854775807)),
gone AS (
    DELETE FROM operations WHERE accepted = ANY(ARRAY(SELECT accepted FROM old WHERE goes)) RETURNING 1),
moved AS (
    UPDATE watermarks SET position = greatest(position, (SELECT max(accepted) FROM old))
    WHERE name = 'old commands' AND EXISTS (SELECT 1 FROM old))
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM old)
