-- endless recursion
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t

-- recursion that doubles its rows
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t, (VALUES (1), (2)) AS two) SELECT max(n) FROM t

-- a product of many tables
SELECT count(*) FROM orders a, orders b, orders c, orders d, orders e

-- a sorted product
SELECT a.id FROM orders a, orders b, orders c, orders d ORDER BY a.id + b.id * c.id - d.id

-- a computed series
SELECT count(*) FROM generate_series(1, 100000 * 100000::bigint)

-- a series of seconds
SELECT max(s) FROM generate_series(timestamp '0001-01-01', timestamp '9999-01-01', interval '1 second') AS s

-- a series that goes on in the select list
SELECT generate_series(1, (SELECT 1000000000))

-- a series of series
SELECT count(*) FROM generate_series(1, 900000) AS a, generate_series(1, 900000) AS b

-- a text of 900 megabytes
SELECT length(repeat('x', 900000000))

-- a text of 900 megabytes as the answer
SELECT repeat('x', 900000000)

-- a text beyond the server's bound
SELECT repeat('x', 2000000000)

-- texts that double
WITH RECURSIVE t (s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t

-- padding
SELECT lpad('x', 500000000)

-- a format with a width
SELECT format('%500000000s', 'x')

-- a large aggregate
SELECT string_agg(repeat('x', 1000000), '') FROM orders a, orders b

-- a large array
SELECT array_agg(a.id) FROM orders a, orders b, orders c, orders d

-- a large document
SELECT jsonb_agg(to_jsonb(a)) FROM order_items a, order_items b

-- a large number
SELECT factorial(100000)

-- a large power
SELECT 9.9::numeric ^ 100000.5, exp(5000::numeric)

-- a slow regular expression
SELECT repeat('a', 5000) ~ '^(a?){200}(a){200}$'

-- a regular expression with back references
SELECT regexp_match(repeat('ab', 20000), '^(.*)(.*)(.*)(.*)\1\2\3\4x$')

-- a slow pattern
SELECT repeat('a', 100000) LIKE repeat('%a', 3000) || 'b'

-- a slow split
SELECT count(*) FROM regexp_split_to_table(repeat('a ', 5000000), '(a|b|c)*\s')

-- a slow path
SELECT jsonb_path_exists((SELECT jsonb_agg(n) FROM generate_series(1, 20000) n), '$[*] ? (exists ($ ? (@[*] > 30000)))')

-- nested documents
SELECT ('[' || repeat('[', 60000) || repeat(']', 60000) || ']')::json

-- many rows
SELECT a.id, b.id FROM orders a, orders b

-- wide rows
SELECT repeat('x', 100000) FROM orders

-- a slow text search
SELECT count(*) FROM products, generate_series(1, 100000) n WHERE to_tsvector('english', repeat(description, 100)) @@ to_tsquery('fox')

-- a headline of a long text
SELECT ts_headline('english', repeat('fox and dog ', 1000000), to_tsquery('fox & dog'))

-- unnest of a large array
SELECT count(*) FROM unnest(string_to_array(repeat('a,', 50000000), ','))
