-- The database roles of a careful installation, and what each may do. To be run by a superuser in paybus's database, before
-- the first `paybus migrate`, and again after each one; as often as one likes.
--
--   psql -d paybus -f deploy/postgres/roles.sql
--   psql -d paybus -v owner=payments_owner -v worker=payments_worker -v reader=payments_reader -f deploy/postgres/roles.sql
--
--   owner    `paybus migrate`: the schema is its own
--   worker   `paybus worker`, `paybus show`, `list`, `events`, `dead`, `forget`, `check`: reads and writes rows, changes no table
--   archiver `paybus archive`: takes settled payments out, and old rows of the audit; `paybus export`
--   reader   people and reports, `paybus show`, `list`, `events`: reads
--
-- Passwords are not set here: \password ROLE, or certificates.
\set ON_ERROR_STOP on
\if :{?owner} \else \set owner paybus_owner \endif
\if :{?worker} \else \set worker paybus_worker \endif
\if :{?archiver} \else \set archiver paybus_archiver \endif
\if :{?reader} \else \set reader paybus_reader \endif

-- In one piece: a worker that is running never finds a right gone.
BEGIN;
SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY[:'owner', :'worker', :'archiver', :'reader']) AS r(name)
WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name) \gexec

SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I, %I, %I',
    current_database(), :'owner', :'worker', :'archiver', :'reader') \gexec
CREATE SCHEMA IF NOT EXISTS paybus;
ALTER SCHEMA paybus OWNER TO :"owner";
GRANT USAGE ON SCHEMA paybus TO :"worker", :"archiver", :"reader";

-- Tables that a later migration makes: until this file is run again.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA paybus GRANT SELECT ON TABLES TO :"reader", :"archiver";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA paybus GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA paybus GRANT SELECT ON SEQUENCES TO :"worker";

-- And those that are there: each what is done to it.
GRANT SELECT ON ALL TABLES IN SCHEMA paybus TO :"reader", :"worker", :"archiver";
-- To see whether one was left behind by a restore; whoever inserts needs no right on them.
GRANT SELECT ON ALL SEQUENCES IN SCHEMA paybus TO :"worker";
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA paybus FROM :"worker", :"archiver";
SELECT format('GRANT %s ON paybus.%I TO %I', rights, name, :'worker')
FROM (VALUES
    -- Payments and what was done with their money are never deleted, events never changed.
    ('payments', 'INSERT, UPDATE'),
    ('operations', 'INSERT, UPDATE, DELETE'),
    ('movements', 'INSERT, UPDATE'),
    ('events', 'INSERT, DELETE'),
    ('audit', 'INSERT'),
    ('sent', 'INSERT, UPDATE, DELETE'),
    ('overdue', 'INSERT, UPDATE, DELETE'),
    ('set_aside', 'INSERT, UPDATE, DELETE'),
    ('watermarks', 'UPDATE'),
    ('buckets', 'UPDATE'),
    ('relays', 'INSERT, UPDATE, DELETE'),
    ('rates', 'INSERT, UPDATE'),
    ('variant_pauses', 'INSERT'),
    ('workers', 'INSERT, UPDATE, DELETE')
) AS t(name, rights)
WHERE to_regclass('paybus.' || name) IS NOT NULL \gexec
SELECT format('GRANT %s ON paybus.%I TO %I', rights, name, :'archiver')
FROM (VALUES
    ('operations', 'DELETE'),
    ('movements', 'DELETE'),
    ('events', 'DELETE'),
    ('sent', 'DELETE'),
    ('audit', 'INSERT, DELETE')
) AS t(name, rights)
WHERE to_regclass('paybus.' || name) IS NOT NULL \gexec
-- The row of a payment stays, for its id is never charged again; what is emptied tells of a person. Its status and its
-- amounts are not the archiver's.
SELECT format('GRANT UPDATE (%s) ON paybus.payments TO %I', string_agg(quote_ident(attname), ', '), :'archiver')
FROM pg_attribute
WHERE attrelid = to_regclass('paybus.payments') AND attname = ANY(ARRAY[
    'archived_at', 'version', 'transaction_id', 'busy_operation', 'description', 'billing_first_name',
    'billing_last_name', 'billing_address_1', 'billing_address_2', 'billing_city', 'billing_postcode',
    'billing_country_code', 'billing_country_area', 'billing_email', 'billing_phone', 'customer_ip_address', 'metadata',
    'fraud_message', 'message', 'extra_data', 'redirect_url'])
HAVING count(*) > 0 \gexec
COMMIT;
