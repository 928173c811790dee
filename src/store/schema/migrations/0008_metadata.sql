-- The publisher's own texts beside a payment. Workers of before write no such column: theirs have none.

ALTER TABLE payments ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';

CREATE TYPE payment_fixed_2 AS (
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
    customer_ip_address  inet,
    metadata             jsonb
);
