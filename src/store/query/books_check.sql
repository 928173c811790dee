WITH batch AS (
    SELECT id, total, authorized_amount, captured_amount, refunded_amount, archived_at FROM payments
    WHERE id > $1 ORDER BY id LIMIT $2),
moved AS (
    SELECT m.payment_id, m.kind, m.amount, m.gateway_reference, m.operation_id, o.answer
    FROM batch b JOIN movements m ON m.payment_id = b.id
    LEFT JOIN operations o ON o.payment_id = m.payment_id AND o.id = m.operation_id),
sums AS (
    SELECT payment_id,
        coalesce(sum(amount) FILTER (WHERE kind = 'authorized'), 0) AS authorized,
        coalesce(sum(amount) FILTER (WHERE kind = 'captured'), 0) AS captured,
        coalesce(sum(amount) FILTER (WHERE kind = 'refunded'), 0) AS refunded,
        coalesce(sum(amount) FILTER (WHERE kind = 'refund_reversed'), 0) AS back,
        coalesce(sum(amount) FILTER (WHERE kind IN ('disputed', 'capture_reversed')), 0) AS gone,
        coalesce(sum(amount) FILTER (WHERE kind = 'capture_reversed'), 0) AS reversed,
        bool_or(answer IN ('failed', 'rejected')) AS of_failed
    FROM moved GROUP BY payment_id),
found AS (
    SELECT payment_id AS id, 0 AS reason FROM moved WHERE gateway_reference IS NOT NULL
    GROUP BY payment_id, kind, gateway_reference HAVING count(*) > 1
    UNION SELECT payment_id, 1 FROM moved WHERE operation_id IS NOT NULL
    GROUP BY payment_id, kind, operation_id HAVING count(*) > 1
    UNION SELECT payment_id, 2 FROM sums WHERE of_failed
    UNION SELECT b.id, 3 FROM batch b JOIN sums s ON s.payment_id = b.id
    WHERE s.captured - s.reversed > greatest(b.total, s.authorized)
    UNION SELECT payment_id, 4 FROM sums WHERE refunded - back > captured - reversed
    UNION SELECT b.id, 5 FROM batch b LEFT JOIN sums s ON s.payment_id = b.id
    WHERE b.archived_at IS NULL AND (b.authorized_amount <> coalesce(s.authorized, 0)
       OR b.refunded_amount <> greatest(coalesce(s.refunded - s.back, 0), 0)
       OR b.captured_amount <> greatest(coalesce(s.captured - greatest(s.refunded - s.back, 0) - s.gone, 0), 0)))
SELECT b.id, array_remove(array_agg(f.reason ORDER BY f.reason), NULL)::int4[]
FROM batch b LEFT JOIN found f ON f.id = b.id GROUP BY b.id ORDER BY b.id
