-- Money is booked by the gateway's own reference. What was booked before keeps the id that it was booked under; its reference
-- is filled in when the gateway tells of it again.

ALTER TABLE movements ADD COLUMN gateway_reference text, ADD COLUMN parent text;

CREATE TYPE movement_row_2 AS (
    payment_id        uuid,
    kind              text,
    reference         text,
    amount            numeric,
    currency          text,
    operation_id      uuid,
    gateway_reference text,
    parent            text
);
