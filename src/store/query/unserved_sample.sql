WITH span AS (SELECT min(accepted) AS first, max(accepted) AS last FROM operations),
sampled AS (
    SELECT DISTINCT o.payment_id FROM span
    CROSS JOIN generate_series(
        span.first, span.last, greatest((span.last - span.first) / $1::int8, 1)) AS g (number)
    CROSS JOIN LATERAL (
        SELECT payment_id FROM operations WHERE accepted >= g.number ORDER BY accepted LIMIT 1) o)
SELECT p.variant, p.gateway, p.account, count(*), (array_agg(s.payment_id))[1],
    count(*) FILTER (WHERE p.status = 'preauth' OR p.captured_amount > 0)
FROM sampled s CROSS JOIN LATERAL (
    SELECT variant, gateway, account, status, captured_amount FROM payments WHERE id = s.payment_id LIMIT 1) p
GROUP BY p.variant, p.gateway, p.account
ORDER BY p.variant, p.gateway, p.account
