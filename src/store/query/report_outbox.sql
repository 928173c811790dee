SELECT count(*),
    greatest(coalesce(extract(epoch FROM now() - min(u.stored) FILTER (WHERE NOT u.aside)), 0), 0)::float8,
    (SELECT count(*) FROM set_aside), count(*) FILTER (WHERE NOT u.aside)
FROM (SELECT o.stored, EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = o.payment_id) AS aside
      FROM overdue o ORDER BY o.position LIMIT $1) u
