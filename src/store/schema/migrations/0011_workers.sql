-- The replicas, for people: each writes its row every few seconds, and deletes it when it has drained.

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    version text NOT NULL,
    address text NOT NULL,
    started timestamptz NOT NULL DEFAULT now(),
    seen timestamptz NOT NULL DEFAULT now(),
    draining boolean NOT NULL,
    not_ready text NOT NULL,
    variants jsonb NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE workers IS 'The replicas. One that is not seen for a while was lost.';
COMMENT ON COLUMN workers.not_ready IS 'Why it is not ready, as in /readyz; empty if it is.';
