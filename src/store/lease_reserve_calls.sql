INSERT INTO rates AS r (variant, next_at)
VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (variant) DO UPDATE
    SET next_at = greatest(r.next_at, now()) + make_interval(secs => $2)
RETURNING extract(epoch FROM next_at - now())::float8 - $2
