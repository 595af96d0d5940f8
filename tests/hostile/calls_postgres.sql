-- A call of each function of the server's, with values where there are some of its types.
SELECT CASE
    WHEN prokind = 'w' THEN 'SELECT ' || call || ' OVER (ORDER BY id) FROM customers'
    WHEN proretset THEN 'SELECT x::text FROM ' || call || ' AS x'
    ELSE 'SELECT (' || call || ')::text FROM customers'
  END
FROM pg_proc, LATERAL (
  SELECT proname || '(' || coalesce(
      string_agg('CAST(' || value || ' AS ' || typname || ')', ', ' ORDER BY place), '') || ')'
  FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS types (type, place)
  JOIN pg_type ON pg_type.oid = type
  LEFT JOIN (VALUES
      ('bool', 'true'), ('bytea', '''a'''), ('date', '''2024-01-01'''), ('float4', '5'),
      ('float8', '6'), ('inet', '''10.0.0.1'''), ('int2', '1'), ('int4', '2'),
      ('int4range', '''[1,2)'''), ('int8', '3'), ('interval', '''1 day'''),
      ('json', '''{"a": 1}'''), ('jsonb', '''{"a": 1}'''), ('jsonpath', '''$.a'''),
      ('name', '''a'''), ('numeric', '4'), ('oid', '1'), ('point', '''(1,2)'''),
      ('regconfig', '''simple'''), ('text', '''a'''), ('time', '''1:00'''),
      ('timestamp', '''2024-01-01'''), ('timestamptz', '''2024-01-01'''), ('tsquery', '''a'''),
      ('tsrange', '''empty'''), ('tsvector', '''a'''),
      ('uuid', '''6ecd8c99-4036-403d-bf84-cf8400f67836''')) AS samples (sample, value)
    ON sample = typname
  HAVING bool_and(value IS NOT NULL) IS NOT FALSE) AS calls (call)
WHERE pronamespace = 'pg_catalog'::regnamespace
ORDER BY 1
