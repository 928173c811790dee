WITH free AS (
    SELECT 1 FROM watermarks WHERE name = $1 AND position <= $2 FOR UPDATE SKIP LOCKED),
noted AS (
    INSERT INTO overdue (payment_id, position, stored)
    SELECT e.payment_id, e.position, e.stored FROM events e
    WHERE e.position > $2 AND e.position <= $3 AND EXISTS (SELECT 1 FROM free)
      AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position AND s.position > $2 AND s.position <= $3)
    ON CONFLICT DO NOTHING)
UPDATE watermarks SET position = $3 WHERE name = $1 AND EXISTS (SELECT 1 FROM free)
