WITH due AS (
    SELECT payment_id, id, due_at FROM operations
    WHERE variant = $1 AND due_at >= $2 AND due_at <= now()
      AND ($5::text[] IS NULL OR state IN ('calling', 'unknown', 'pending') OR command_type = ANY($5))
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE operations o SET due_at = now() + make_interval(secs => $4) FROM due
WHERE o.payment_id = due.payment_id AND o.id = due.id
RETURNING o.payment_id, o.id, due.due_at, o.due_at
