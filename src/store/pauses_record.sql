INSERT INTO variant_pauses (command, variant, paused, until, reason, user_id, source, command_id)
SELECT $1::uuid, $2::text, $3::boolean, $4::timestamptz, $5::text, $6::text, $7::text, $8::text
WHERE ($4 IS NULL OR $4 > now()) AND ($9::timestamptz IS NULL OR $9 > now())
ON CONFLICT (command) DO NOTHING
