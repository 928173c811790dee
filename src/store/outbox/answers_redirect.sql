WITH raised AS (
    UPDATE payments SET version = version + 1 WHERE id = $1
      AND EXISTS (SELECT 1 FROM operations WHERE payment_id = $1 AND id = $2 AND state <> 'settled')
    RETURNING id)
UPDATE operations o SET reply_to = $3, reply_correlation_id = $4 FROM (SELECT count(*) FROM raised) locked
WHERE o.payment_id = $1 AND o.id = $2 AND o.state <> 'settled'
