WITH old AS (
    SELECT e.position, e.created FROM events e
    CROSS JOIN LATERAL (SELECT 1 FROM sent s WHERE s.position = e.position LIMIT 1) s
    WHERE e.position > $4 AND e.position <= $3
      AND (SELECT created FROM events WHERE position > $4 ORDER BY position LIMIT 1) < $1
    ORDER BY e.position LIMIT $2),
gone AS (
    DELETE FROM events WHERE position = ANY(ARRAY(SELECT position FROM old WHERE created < $1))
    RETURNING position),
marks AS (DELETE FROM sent WHERE position = ANY(ARRAY(SELECT position FROM gone))),
notes AS (DELETE FROM overdue WHERE position = ANY(ARRAY(SELECT position FROM gone))),
moved AS (
    UPDATE watermarks SET position = greatest(position, least(
        (SELECT max(position) FROM gone),
        (SELECT min(position) - 1 FROM old WHERE created >= $1),
        (SELECT min(position) - 1 FROM overdue)))
    WHERE name = 'purged events' AND EXISTS (SELECT 1 FROM gone))
SELECT count(*) FROM gone
