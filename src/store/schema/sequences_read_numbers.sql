SELECT n.name, n.sequence::text, n.greatest,
    CASE WHEN has_sequence_privilege(n.sequence, 'SELECT') THEN coalesce(pg_sequence_last_value(n.sequence), 0) END
FROM (VALUES
    ('operations.accepted'::text, pg_get_serial_sequence('paybus.operations', 'accepted')::regclass, greatest(
        (SELECT max(accepted) FROM paybus.operations),
        (SELECT max(position) FROM paybus.watermarks
         WHERE name IN ('operations', 'new operations', 'orphans', 'old commands')), 0)),
    ('events.position'::text, pg_get_serial_sequence('paybus.events', 'position')::regclass, greatest(
        (SELECT max(position) FROM paybus.events),
        (SELECT max(position) FROM paybus.sent),
        (SELECT max(position) FROM paybus.watermarks WHERE name IN ('events', 'late events')), 0))
) AS n(name, sequence, greatest)
