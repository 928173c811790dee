SELECT DISTINCT ON (variant) variant, until, reason,
    paused AND (until IS NULL OR until > now()) AS is_paused
FROM variant_pauses
ORDER BY variant, number DESC
