SELECT variant = $2 AND paused = $3 AND until IS NOT DISTINCT FROM $4 AND reason = $5
FROM variant_pauses
WHERE command = $1
