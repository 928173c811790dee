-- The rows of a commit as it sends them: PostgreSQL takes one array of rows apart much faster than one array for each column.
--
-- Not the tables' own types: a table gets columns, and the statement of an earlier worker must go on to fit. What is here is
-- never changed either: what more is to be written has a type of its own, beside these.

CREATE TYPE payment_fixed AS (
    id                   uuid,
    variant              text,
    gateway              text,
    account              text,
    created              timestamptz,
    currency             text,
    total                numeric,
    delivery             numeric,
    tax                  numeric,
    description          text,
    billing_first_name   text,
    billing_last_name    text,
    billing_address_1    text,
    billing_address_2    text,
    billing_city         text,
    billing_postcode     text,
    billing_country_code text,
    billing_country_area text,
    billing_email        text,
    billing_phone        text,
    customer_ip_address  inet
);

CREATE TYPE payment_change AS (
    id                uuid,
    expected          int8,
    status            text,
    fraud_status      text,
    fraud_message     text,
    modified          timestamptz,
    transaction_id    text,
    message           text,
    extra_data        jsonb,
    captured_amount   numeric,
    authorized_amount numeric,
    refunded_amount   numeric,
    redirect_url      text,
    capture           bool,
    version           int8,
    busy_operation    uuid,
    waiting           int4,
    last_sequence     int8
);

CREATE TYPE operation_fixed AS (
    payment_id           uuid,
    id                   uuid,
    subject              text,
    source               text,
    command_id           text,
    command_type         text,
    variant              text,
    hash                 bytea,
    correlation_id       text,
    traceparent          text,
    tracestate           text,
    expires_at           timestamptz,
    reply_to             text,
    reply_correlation_id text,
    user_id              text,
    created              timestamptz
);

CREATE TYPE operation_change AS (
    payment_id     uuid,
    id             uuid,
    data           jsonb,
    state          text,
    attempts       int4,
    rounds         int4,
    lookups        int4,
    takeovers      int4,
    generation     int4,
    exposed        bool,
    acted_on       bool,
    lookup_only    bool,
    first_sent_at  timestamptz,
    last_sent_at   timestamptz,
    lease_owner    uuid,
    lease_until    timestamptz,
    due_at         timestamptz,
    escalated      bool,
    amount         numeric,
    capture        bool,
    request        text,
    last_code      text,
    last_message   text,
    answer         text,
    answer_code    text,
    answer_message text,
    settled_at     timestamptz
);

CREATE TYPE movement_row AS (
    payment_id   uuid,
    kind         text,
    reference    text,
    amount       numeric,
    currency     text,
    operation_id uuid
);

CREATE TYPE event_row AS (
    payment_id           uuid,
    id                   uuid,
    sequence             int8,
    event_type           text,
    routing_key          text,
    body                 text,
    correlation_id       text,
    traceparent          text,
    tracestate           text,
    reply_to             text,
    reply_correlation_id text,
    created              timestamptz
);
