//! A history: payments of earlier days, settled, with their operations, movements and sent events, as wide as new ones.

use tokio_postgres::Client;

/// How many rows one statement makes.
const STEP: usize = 50_000;

/// Stores so many, and lets PostgreSQL look at them as it would have by then.
pub async fn fill(client: &Client, payments: usize) {
    let mut made = 0;
    while made < payments {
        let count = STEP.min(payments - made);
        client.execute(ROWS, &[&i64::try_from(count).expect("few enough")]).await.expect("a history");
        made += count;
    }
    client.batch_execute(MARKS).await.expect("marks");
    client.batch_execute("VACUUM ANALYZE").await.expect("a vacuum");
    client.batch_execute("CHECKPOINT").await.expect("a checkpoint");
}

const ROWS: &str = "
WITH r AS MATERIALIZED (SELECT gen_random_uuid() AS id, n FROM generate_series(1, $1::int8) AS n),
p AS (INSERT INTO paybus.payments (id, variant, gateway, account, status, fraud_status, fraud_message, created, modified,
    transaction_id, currency, total, delivery, tax, description, billing_first_name, billing_last_name,
    billing_address_1, billing_address_2, billing_city, billing_postcode, billing_country_code, billing_country_area,
    billing_email, billing_phone, customer_ip_address, extra_data, message, captured_amount, authorized_amount,
    refunded_amount, version, waiting, last_sequence)
  SELECT id, 'earlier', 'http', 'http://127.0.0.1:9000', 'confirmed', 'unknown', '', now() - interval '1 day',
    now() - interval '1 day', id::text, 'USD', 120, 10, 20, 'Book purchase', 'Sherlock', 'Holmes', '221B Baker Street',
    '', 'London', 'NW1 6XE', 'GB', 'Greater London', '', '', '127.0.0.1', '{}', '', 120, 0, 0, 2, 0, 2 FROM r),
o AS (INSERT INTO paybus.operations (payment_id, id, source, command_id, command_type, variant, hash, data, created,
    state, attempts, rounds, lookups, takeovers, generation, exposed, acted_on, lookup_only, escalated, amount, capture,
    last_message, answer, settled_at, stored)
  SELECT id, id, 'shop/checkout', id::text, 'payment.create', 'earlier', uuid_send(id) || uuid_send(id), '{}',
    now() - interval '1 day', 'settled', 1, 0, 0, 0, 0, false, true, false, false, 120, true, '', 'succeeded',
    now() - interval '1 day', now() - interval '1 day' FROM r),
m AS (INSERT INTO paybus.movements (payment_id, kind, reference, amount, currency, operation_id, created)
  SELECT id, 'captured', id::text, 120, 'USD', id, now() - interval '1 day' FROM r)
INSERT INTO paybus.events (payment_id, id, sequence, event_type, routing_key, body, created, stored)
  SELECT id, gen_random_uuid(), step, 'payment.created', 'earlier.payment.created', repeat('a whole payment ', 80),
    now() - interval '1 day', now() - interval '1 day' FROM r, generate_series(1, 2) AS step";

/// Sent, and looked at by every sweep.
const MARKS: &str = "
INSERT INTO paybus.sent (position, sent_at) SELECT position, stored FROM paybus.events;
UPDATE paybus.watermarks SET position = CASE WHEN name IN ('events', 'late events')
    THEN (SELECT max(position) FROM paybus.events) ELSE (SELECT max(accepted) FROM paybus.operations) END
    WHERE name <> 'purged events'";
