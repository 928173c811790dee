-- Who paused which variant, and who let it continue. Rows are only ever added: the last one of a variant counts. A command
-- that comes again finds its row.

CREATE TABLE variant_pauses (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command uuid NOT NULL UNIQUE,
    variant text NOT NULL,
    paused boolean NOT NULL,
    until timestamptz,
    reason text NOT NULL,
    user_id text NOT NULL,
    source text NOT NULL,
    command_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX variant_pauses_last ON variant_pauses (variant, number DESC);
COMMENT ON TABLE variant_pauses IS 'What operators did to variants: paused them or let them continue.';
COMMENT ON COLUMN variant_pauses.command IS 'The operation id of the command.';
COMMENT ON COLUMN variant_pauses.until IS 'When the pause ends by itself.';
