WITH alive AS (
    INSERT INTO relays (worker, until) VALUES ($1, now() + make_interval(secs => $2))
    ON CONFLICT (worker) DO UPDATE SET until = excluded.until),
dead AS (DELETE FROM relays WHERE worker <> $1 AND until < now() - interval '1 hour'),
live AS (SELECT count(*) AS others FROM relays WHERE until > now() AND worker <> $1),
mine AS (
    SELECT bucket FROM buckets WHERE owner = $1 OR owner IS NULL OR until <= now()
    ORDER BY (owner = $1 AND until > now()) DESC NULLS LAST, bucket
    LIMIT (SELECT ceil(16.0 / (1 + others))::int FROM live) FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE buckets b SET owner = $1, until = now() + make_interval(secs => $2) FROM mine
    WHERE b.bucket = mine.bucket RETURNING b.bucket),
given AS (
    UPDATE buckets b SET owner = NULL, until = NULL
    WHERE owner = $1 AND bucket NOT IN (SELECT bucket FROM mine))
SELECT bucket FROM taken
