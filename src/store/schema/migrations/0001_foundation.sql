-- Payments, the commands stored as operations, the movements of money, and the events that tell of them.
-- Every primary key begins with the payment's id, so that one payment's rows can live on one shard.

CREATE TABLE payments (
    id                   uuid PRIMARY KEY,
    variant              text NOT NULL,
    gateway              text NOT NULL,
    account              text NOT NULL,
    status               text NOT NULL,
    fraud_status         text NOT NULL,
    fraud_message        text NOT NULL,
    created              timestamptz NOT NULL,
    modified             timestamptz NOT NULL,
    transaction_id       text NOT NULL,
    currency             text NOT NULL,
    total                numeric NOT NULL,
    delivery             numeric NOT NULL,
    tax                  numeric NOT NULL,
    description          text NOT NULL,
    billing_first_name   text NOT NULL,
    billing_last_name    text NOT NULL,
    billing_address_1    text NOT NULL,
    billing_address_2    text NOT NULL,
    billing_city         text NOT NULL,
    billing_postcode     text NOT NULL,
    billing_country_code text NOT NULL,
    billing_country_area text NOT NULL,
    billing_email        text NOT NULL,
    billing_phone        text NOT NULL,
    customer_ip_address  inet,
    extra_data           jsonb NOT NULL,
    message              text NOT NULL,
    token                uuid NOT NULL DEFAULT gen_random_uuid(),
    captured_amount      numeric NOT NULL,
    authorized_amount    numeric NOT NULL,
    refunded_amount      numeric NOT NULL,
    redirect_url         text,
    capture              boolean,
    version              bigint NOT NULL,
    busy_operation       uuid,
    waiting              integer NOT NULL,
    last_sequence        bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- fillfactor: every payment is updated at least once soon after it was inserted; with room on its page and no index on
-- a column that changes, that update writes no index.

COMMENT ON COLUMN payments.captured_amount IS 'What was captured minus what was refunded or lost, never below zero.';
COMMENT ON COLUMN payments.version IS 'Raised by every change; a write that read an older one changes nothing.';
COMMENT ON COLUMN payments.busy_operation IS 'The operation that holds the payment''s turn.';

CREATE TABLE operations (
    payment_id           uuid NOT NULL,
    id                   uuid NOT NULL,
    subject              text,
    source               text NOT NULL,
    command_id           text NOT NULL,
    command_type         text NOT NULL,
    variant              text NOT NULL,
    hash                 bytea NOT NULL,
    data                 jsonb NOT NULL,
    correlation_id       text,
    traceparent          text,
    tracestate           text,
    expires_at           timestamptz,
    reply_to             text,
    reply_correlation_id text,
    user_id              text,
    state                text NOT NULL,
    accepted             bigint GENERATED ALWAYS AS IDENTITY,
    created              timestamptz NOT NULL,
    attempts             integer NOT NULL,
    rounds               integer NOT NULL,
    lookups              integer NOT NULL,
    takeovers            integer NOT NULL,
    generation           integer NOT NULL,
    exposed              boolean NOT NULL,
    acted_on             boolean NOT NULL,
    lookup_only          boolean NOT NULL,
    first_sent_at        timestamptz,
    last_sent_at         timestamptz,
    lease_owner          uuid,
    lease_until          timestamptz,
    due_at               timestamptz,
    escalated            boolean NOT NULL,
    amount               numeric,
    capture              boolean,
    request              text,
    last_code            text,
    last_message         text NOT NULL,
    answer               text,
    answer_code          text,
    answer_message       text,
    settled_at           timestamptz,
    stored               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, id)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

COMMENT ON COLUMN operations.hash IS 'SHA-256 of type and data: the same name with another hash is refused.';
COMMENT ON COLUMN operations.exposed IS 'An attempt may have been received: only the gateway''s own result ends it.';
COMMENT ON COLUMN operations.acted_on IS 'The gateway has said that it acted on it, or will: not to find it later proves nothing.';
COMMENT ON COLUMN operations.stored IS 'When its row was made, by the database; when it was decided is in created.';
COMMENT ON COLUMN operations.due_at IS 'When it is looked at again; empty on the common way, so that settling writes no index.';

-- In order of acceptance and never changed: the sweep for lost workers reads it from a watermark.
CREATE INDEX operations_accepted ON operations (accepted);
CREATE INDEX operations_due ON operations (variant, due_at) WHERE due_at IS NOT NULL;
-- Few rows, and only ones that left the common way.
CREATE INDEX operations_unknown ON operations (variant) WHERE state = 'unknown' OR state = 'pending' AND escalated;

-- Undoes the statement of a writer that read an operation before another one changed it; it is tried again.
CREATE FUNCTION overtaken() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another writer changed the operation' USING ERRCODE = 'serialization_failure';
END $$;

CREATE TABLE movements (
    payment_id   uuid NOT NULL,
    kind         text NOT NULL,
    reference    text NOT NULL,
    amount       numeric NOT NULL,
    currency     text NOT NULL,
    operation_id uuid,
    created      timestamptz NOT NULL,
    PRIMARY KEY (payment_id, kind, reference)
);

CREATE TABLE events (
    payment_id           uuid NOT NULL,
    id                   uuid NOT NULL,
    position             bigint GENERATED ALWAYS AS IDENTITY,
    sequence             bigint,
    event_type           text NOT NULL,
    routing_key          text NOT NULL,
    body                 text NOT NULL,
    correlation_id       text,
    traceparent          text,
    tracestate           text,
    reply_to             text,
    reply_correlation_id text,
    created              timestamptz NOT NULL,
    stored               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, id)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_scale_factor = 0.1);
-- Stored in the row and uncompressed up to a page: an event is written once and read at most once.
CREATE INDEX events_position ON events (position);

-- Which events the broker confirmed. Beside the events and not in them: an event's row is wide and never changes, and a
-- narrow row at the end of a table is the cheapest mark there is.
CREATE TABLE sent (
    position bigint NOT NULL,
    sent_at  timestamptz NOT NULL,
    reply    text
);
CREATE INDEX sent_position ON sent (position);

-- Events that were not confirmed while their worker owned them; the relay sends them. Every event is looked at once when
-- it is that old, and noted here where its mark is missing: so the relay reads what it has to send and nothing else,
-- however many events there are and however long one of them has been waiting.
CREATE TABLE overdue (
    payment_id uuid NOT NULL,
    position   bigint NOT NULL,
    stored     timestamptz NOT NULL,
    PRIMARY KEY (payment_id, position)
);
CREATE INDEX overdue_position ON overdue (position);

-- Events that the broker refused twice alone, with the later ones of their payment; somebody must look.
CREATE TABLE set_aside (
    payment_id uuid NOT NULL,
    position   bigint NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (payment_id, position)
);

CREATE VIEW outbox AS
    SELECT e.* FROM events e
    WHERE NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position);

-- From where the sweeps read: what is before was looked at. Positions are given before they can be seen, so events are
-- looked at once more when they are so old that none can be missing.
CREATE TABLE watermarks (
    name     text PRIMARY KEY,
    position bigint NOT NULL
);
INSERT INTO watermarks VALUES ('operations', 0), ('events', 0), ('late events', 0), ('orphans', 0);

-- The replicas that relay, so that each knows its share, and which of them relays which payments' old events.
CREATE TABLE relays (
    worker uuid PRIMARY KEY,
    until  timestamptz NOT NULL
);
CREATE TABLE buckets (
    bucket smallint PRIMARY KEY,
    owner  uuid,
    until  timestamptz
);
INSERT INTO buckets SELECT generate_series(0, 15);

-- The rate limits that hold over all replicas: when the next call of a variant may go out.
CREATE TABLE rates (
    variant text PRIMARY KEY,
    next_at timestamptz NOT NULL
);

-- Who did what by hand, on dead letters and parked things.
CREATE TABLE audit (
    at      timestamptz NOT NULL DEFAULT now(),
    who     text NOT NULL,
    action  text NOT NULL,
    details jsonb NOT NULL
);
