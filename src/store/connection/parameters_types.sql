SELECT parameter.type::oid, array_type.typname, schema.nspname, element.oid, element.typname,
    columns.names, columns.types
FROM pg_prepared_statements statement,
LATERAL unnest(statement.parameter_types) WITH ORDINALITY AS parameter(type, place)
JOIN pg_type array_type ON array_type.oid = parameter.type
JOIN pg_namespace schema ON schema.oid = array_type.typnamespace
LEFT JOIN pg_type element ON element.oid = array_type.typelem AND element.typtype = 'c'
LEFT JOIN LATERAL (
    SELECT array_agg(attname::text ORDER BY attnum) AS names, array_agg(atttypid ORDER BY attnum) AS types
    FROM pg_attribute WHERE attrelid = element.typrelid AND attnum > 0 AND NOT attisdropped) columns ON true
WHERE statement.name = $1
ORDER BY parameter.place
