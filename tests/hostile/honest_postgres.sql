-- totals by status
SELECT status, count(*) AS orders, sum(total) AS revenue FROM orders GROUP BY status ORDER BY revenue DESC

-- average with a float and a cast
SELECT country, round(avg(total)::numeric, 2) AS average FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY country ORDER BY country

-- count distinct
SELECT count(DISTINCT customer_id), count(*) FILTER (WHERE status = 'paid') AS paid FROM orders

-- having
SELECT customer_id, count(*) FROM orders GROUP BY customer_id HAVING count(*) > 3 ORDER BY 2 DESC, 1 LIMIT 10

-- group by expression and position
SELECT extract(year FROM placed_at) AS year, extract(month FROM placed_at) AS month, sum(total) FROM orders GROUP BY 1, 2 ORDER BY 1, 2

-- statistics
SELECT stddev(total), variance(total), stddev_pop(total), corr(total, discount), regr_slope(total, discount) FROM orders

-- percentile within group
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) AS median, percentile_disc(0.9) WITHIN GROUP (ORDER BY total) FROM orders

-- percentile with an array of fractions
SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75]) WITHIN GROUP (ORDER BY total) AS quartiles FROM orders

-- mode
SELECT mode() WITHIN GROUP (ORDER BY status) FROM orders

-- hypothetical rank
SELECT rank(100) WITHIN GROUP (ORDER BY total) FROM orders

-- grouping sets
SELECT country, segment, count(*) FROM customers GROUP BY GROUPING SETS ((country), (segment), ()) ORDER BY country NULLS LAST, segment NULLS LAST

-- rollup with grouping
SELECT country, segment, grouping(country, segment) AS level, count(*) FROM customers GROUP BY ROLLUP (country, segment) ORDER BY country NULLS LAST, segment NULLS LAST

-- cube
SELECT country, segment, count(*) FROM customers GROUP BY CUBE (country, segment) ORDER BY 1 NULLS LAST, 2 NULLS LAST

-- bool aggregates
SELECT bool_and(total > 0), bool_or(note IS NOT NULL), every(id > 0) FROM orders

-- string aggregate in order
SELECT country, string_agg(name, ', ' ORDER BY name DESC) FROM customers WHERE id < 12 GROUP BY country ORDER BY country

-- distinct string aggregate
SELECT string_agg(DISTINCT status, '|' ORDER BY status) FROM orders

-- array aggregate
SELECT customer_id, array_agg(id ORDER BY placed_at) AS ids FROM orders WHERE customer_id < 5 GROUP BY customer_id ORDER BY customer_id

-- json aggregate
SELECT json_agg(json_build_object('id', id, 'total', total) ORDER BY id) FROM orders WHERE id <= 3

-- jsonb object aggregate
SELECT jsonb_object_agg(id, name) FROM products WHERE id < 4

-- row to json
SELECT row_to_json(p) FROM (SELECT id, name FROM products ORDER BY id LIMIT 2) AS p

-- row number
SELECT id, customer_id, row_number() OVER (PARTITION BY customer_id ORDER BY placed_at) AS nth FROM orders ORDER BY id LIMIT 20

-- running total
SELECT placed_at::date AS day, total, sum(total) OVER (ORDER BY placed_at) AS running FROM orders ORDER BY placed_at LIMIT 15

-- moving average by rows
SELECT at, avg(value) OVER (PARTITION BY sensor ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM readings WHERE sensor = 's1' ORDER BY at

-- moving sum by range of time
SELECT at, sum(value) OVER (ORDER BY at RANGE BETWEEN INTERVAL '3 hours' PRECEDING AND CURRENT ROW) FROM readings WHERE sensor = 's2' ORDER BY at

-- groups frame
SELECT id, sum(salary) OVER (ORDER BY department GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM employees ORDER BY id

-- lag and lead
SELECT id, total - lag(total) OVER w AS change, lead(total, 2, 0) OVER w AS ahead FROM orders WINDOW w AS (ORDER BY placed_at) ORDER BY id LIMIT 12

-- first and last value
SELECT department, name, first_value(name) OVER (PARTITION BY department ORDER BY salary DESC, id), last_value(name) OVER (PARTITION BY department ORDER BY salary DESC, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM employees ORDER BY id

-- ranks
SELECT name, salary, rank() OVER (ORDER BY salary DESC), dense_rank() OVER (ORDER BY salary DESC), percent_rank() OVER (ORDER BY salary), cume_dist() OVER (ORDER BY salary) FROM employees ORDER BY id

-- ntile
SELECT id, ntile(4) OVER (ORDER BY total DESC, id) AS quartile FROM orders ORDER BY id LIMIT 12

-- nth value
SELECT id, nth_value(name, 2) OVER (PARTITION BY department ORDER BY hired) FROM employees ORDER BY id

-- window over an aggregate
SELECT status, sum(total) AS revenue, round(100 * sum(total) / sum(sum(total)) OVER (), 2) AS share FROM orders GROUP BY status ORDER BY status

-- named window with more order
SELECT id, count(*) OVER (w ORDER BY id) FROM employees WINDOW w AS (PARTITION BY department) ORDER BY id

-- filter in a window
SELECT id, count(*) FILTER (WHERE status = 'paid') OVER (ORDER BY id) FROM orders ORDER BY id LIMIT 10

-- top n per group
SELECT * FROM (SELECT customer_id, id, total, row_number() OVER (PARTITION BY customer_id ORDER BY total DESC, id) AS rn FROM orders) ranked WHERE rn = 1 ORDER BY customer_id LIMIT 8

-- distinct on
SELECT DISTINCT ON (customer_id) customer_id, id, placed_at FROM orders ORDER BY customer_id, placed_at DESC LIMIT 10

-- common table expressions in a row
WITH paid AS (SELECT * FROM orders WHERE status = 'paid'), monthly AS (SELECT date_trunc('month', placed_at) AS month, sum(total) AS revenue FROM paid GROUP BY 1) SELECT month, revenue, revenue - lag(revenue) OVER (ORDER BY month) AS growth FROM monthly ORDER BY month

-- materialized common table expressions
WITH a AS MATERIALIZED (SELECT id FROM orders WHERE total > 300), b AS NOT MATERIALIZED (SELECT id FROM orders WHERE discount IS NOT NULL) SELECT count(*) FROM a JOIN b USING (id)

-- recursive hierarchy
WITH RECURSIVE chain AS (SELECT id, name, manager_id, 1 AS depth, name AS path FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, e.name, e.manager_id, c.depth + 1, c.path || ' > ' || e.name FROM employees e JOIN chain c ON e.manager_id = c.id) SELECT depth, path FROM chain ORDER BY path

-- recursive path in an array
WITH RECURSIVE up AS (SELECT id, manager_id, ARRAY[id] AS path FROM employees WHERE id = 29 UNION ALL SELECT e.id, e.manager_id, up.path || e.id FROM employees e, up WHERE e.id = up.manager_id AND NOT e.id = ANY(up.path)) SELECT * FROM up ORDER BY array_length(path, 1)

-- recursive numbers
WITH RECURSIVE t (n, f) AS (VALUES (1, 1::numeric) UNION ALL SELECT n + 1, f * (n + 1) FROM t WHERE n < 15) SELECT n, f FROM t

-- recursive fibonacci
WITH RECURSIVE fib (a, b) AS (SELECT 0::bigint, 1::bigint UNION ALL SELECT b, a + b FROM fib WHERE b < 100000) SELECT a FROM fib

-- calendar by generate_series
SELECT day::date, count(o.id) FROM generate_series(date '2024-01-01', date '2024-01-31', interval '1 day') AS day LEFT JOIN orders o ON o.placed_at::date = day::date GROUP BY day ORDER BY day

-- generate_series of integers
SELECT n, n * n AS square FROM generate_series(1, 10) AS t (n)

-- generate_series with a step downwards
SELECT * FROM generate_series(10, 1, -3)

-- generate_series in the select list
SELECT generate_series(1, 4) AS n, 'x' AS x

-- generate_series over timestamps with time zone
SELECT to_char(h, 'HH24:MI') FROM generate_series(timestamptz '2024-03-31 00:00+01', timestamptz '2024-03-31 06:00+02', '1 hour') AS h

-- gaps in a series
SELECT s.n FROM generate_series((SELECT min(id) FROM orders), (SELECT max(id) FROM orders)) AS s (n) WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = s.n AND o.status = 'paid') ORDER BY 1 LIMIT 10

-- unnest in from
SELECT c.id, t.tag FROM customers c, unnest(c.tags) AS t (tag) WHERE c.id < 8 ORDER BY 1, 2

-- unnest with ordinality
SELECT c.id, u.tag, u.position FROM customers c CROSS JOIN LATERAL unnest(c.tags) WITH ORDINALITY AS u (tag, position) WHERE c.id < 8 ORDER BY 1, 3

-- unnest of two arrays
SELECT * FROM unnest(ARRAY[1, 2, 3], ARRAY['a', 'b']) AS x (n, letter)

-- unnest in the select list
SELECT id, unnest(tags) AS tag FROM customers WHERE id IN (3, 4) ORDER BY 1, 2

-- count by tag
SELECT tag, count(*) FROM customers, unnest(tags) AS tag GROUP BY tag ORDER BY count(*) DESC, tag

-- array operators
SELECT id FROM customers WHERE tags @> ARRAY['vip'] AND NOT tags && ARRAY['beta'] AND tags <@ ARRAY['new', 'vip', 'late', 'eu'] ORDER BY id

-- array functions
SELECT id, cardinality(tags), array_length(tags, 1), array_position(tags, 'vip'), array_to_string(tags, '/', '-'), tags[1], tags[2:3], array_append(tags, 'x'), array_remove(tags, 'new') FROM customers WHERE id <= 5 ORDER BY id

-- array constructor and any
SELECT id FROM orders WHERE status = ANY(ARRAY['paid', 'open']) AND id <> ALL('{1,2,3}'::int[]) ORDER BY id LIMIT 5

-- array subquery
SELECT c.id, ARRAY(SELECT o.id FROM orders o WHERE o.customer_id = c.id ORDER BY o.id) AS orders FROM customers c WHERE c.id < 4 ORDER BY c.id

-- array concatenation and comparison
SELECT ARRAY[1, 2] || ARRAY[3], 0 || ARRAY[1], ARRAY[1, 2] < ARRAY[1, 3], ARRAY[[1, 2], [3, 4]] AS matrix

-- generate_subscripts
SELECT i, (ARRAY['a', 'b', 'c'])[i] FROM generate_subscripts(ARRAY['a', 'b', 'c'], 1) AS i

-- string to array and back
SELECT string_to_array('a,b,,c', ','), array_to_string(string_to_array('a,b,,c', ','), ';')

-- string to table
SELECT word, count(*) FROM products, string_to_table(lower(description), ' ') AS word GROUP BY word ORDER BY 2 DESC, 1 LIMIT 8

-- regexp split to table
SELECT DISTINCT token FROM products, regexp_split_to_table(description, '\s+') AS token ORDER BY token

-- regexp matches in from
SELECT o.id, m[1] AS reference FROM orders o, regexp_matches(o.note, 'ref=(\d+)') AS m WHERE o.id < 40 ORDER BY o.id

-- regexp match and replace
SELECT id, (regexp_match(note, 'ref=(\d+)'))[1], regexp_replace(note, '[aeiou]', '*', 'g') FROM orders WHERE note IS NOT NULL ORDER BY id LIMIT 5

-- regexp functions of version 15
SELECT regexp_count('banana', 'an'), regexp_instr('banana', 'na'), regexp_substr('banana', 'n.'), regexp_like('banana', '^B', 'i')

-- pattern operators
SELECT count(*) FROM customers WHERE name ~ '^A' OR name ~* '^f' OR name !~ 'o' AND name !~* 'B'

-- like and ilike
SELECT count(*) FROM customers WHERE email LIKE '%@example.com' AND name ILIKE 'a%' AND email NOT LIKE 'c1\_%' AND name NOT ILIKE '%z'

-- like any
SELECT id FROM customers WHERE name LIKE ANY (ARRAY['Ada%', 'Fox%']) AND name ILIKE ANY (ARRAY['%1', '%2']) ORDER BY id

-- similar to
SELECT count(*) FROM customers WHERE name SIMILAR TO '(Ada|Bob)%'

-- starts with
SELECT id FROM customers WHERE name ^@ 'Ada' AND starts_with(name, 'A') ORDER BY id LIMIT 3

-- string functions
SELECT upper(name), lower(name), initcap('hello world'), length(name), char_length(name), octet_length(name), left(name, 3), right(name, 2), reverse(name), lpad(id::text, 4, '0'), rpad('x', 3, '-'), repeat('ab', 2) FROM customers WHERE id = 3

-- more string functions
SELECT split_part('a-b-c', '-', 2), strpos('hello', 'l'), position('l' IN 'hello'), substring('hello' FROM 2 FOR 3), substring('hello', 2), substr('hello', 2, 2), trim(BOTH 'x' FROM 'xhix'), ltrim('  a'), rtrim('a  '), btrim('xax', 'x'), translate('abc', 'ac', 'xz'), overlay('abcdef' PLACING 'ZZ' FROM 3 FOR 2)

-- substring with a pattern
SELECT substring(email FROM '@(.*)$') AS domain, count(*) FROM customers WHERE email IS NOT NULL GROUP BY 1 ORDER BY 1

-- concat and format
SELECT concat(name, NULL, 1), concat_ws('-', 'a', NULL, 'b'), format('%s has %s (%L, %I)', name, id, 'it''s', 'a b'), name || ' ' || coalesce(email, 'none') FROM customers WHERE id IN (6, 7) ORDER BY id

-- quoting functions
SELECT quote_literal('O''Hara'), quote_ident('a b'), quote_nullable(NULL), ascii('A'), chr(8364), to_hex(255), md5('a'), encode('abc'::bytea, 'hex'), encode(sha256('a'::bytea), 'base64')

-- escape strings
SELECT string_agg(name, E'\n' ORDER BY id), split_part(E'a\tb', E'\t', 2), $$it's$$ || $q$ fine$q$, U&'d\0061ta' FROM customers WHERE id < 3

-- case
SELECT id, CASE WHEN total > 300 THEN 'large' WHEN total > 100 THEN 'medium' ELSE 'small' END AS size, CASE status WHEN 'paid' THEN 1 ELSE 0 END FROM orders ORDER BY id LIMIT 10

-- pivot by case
SELECT extract(month FROM placed_at)::int AS month, sum(CASE WHEN status = 'paid' THEN total ELSE 0 END) AS paid, sum(total) FILTER (WHERE status = 'refunded') AS refunded FROM orders GROUP BY 1 ORDER BY 1

-- coalesce and friends
SELECT coalesce(note, status, '-'), nullif(status, 'open'), greatest(total, 100), least(total, 100, 50), num_nulls(note, discount), num_nonnulls(note, discount) FROM orders ORDER BY id LIMIT 10

-- null safe comparison
SELECT count(*) FROM orders WHERE note IS DISTINCT FROM 'x' AND discount IS NOT DISTINCT FROM NULL

-- boolean tests
SELECT (total > 100) IS TRUE, (note = 'x') IS UNKNOWN, (discount > 0) IS NOT FALSE, note IS NULL, note NOTNULL FROM orders ORDER BY id LIMIT 5

-- row comparison
SELECT id FROM orders WHERE (customer_id, status) = (8, 'open') OR (id, 1) > (198, 0) ORDER BY id

-- row constructor with in
SELECT id FROM orders WHERE (customer_id, status) IN ((8, 'open'), (15, 'paid'), (22, 'cancelled')) ORDER BY id

-- row constructors compared
SELECT ROW(1, 'a') = ROW(1, 'a'), ROW(1, NULL) IS NULL, (1, 2) < (1, 3)

-- exists and not exists
SELECT count(*) FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.total > 400) AND NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.id AND o.status = 'refunded')

-- in and not in
SELECT count(*) FROM products WHERE category IN ('books', 'games') AND id NOT IN (SELECT product_id FROM order_items WHERE quantity > 4)

-- quantified comparison with a subquery
SELECT id FROM products WHERE price > ALL (SELECT price FROM products WHERE category = 'books' AND id < 15) OR price = SOME (SELECT min(price) FROM products) ORDER BY id

-- scalar subqueries
SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) AS orders, (SELECT max(placed_at) FROM orders o WHERE o.customer_id = c.id) AS latest FROM customers c ORDER BY orders DESC, id LIMIT 5

-- joins of many tables
SELECT p.category, c.country, sum(i.quantity * i.price) AS revenue FROM order_items i JOIN orders o ON o.id = i.order_id JOIN customers c ON c.id = o.customer_id JOIN products p ON p.id = i.product_id WHERE o.status = 'paid' GROUP BY p.category, c.country ORDER BY revenue DESC LIMIT 6

-- outer joins
SELECT c.id, o.id FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.status = 'refunded' WHERE c.id < 10 ORDER BY 1, 2

-- full join
SELECT a.n, b.n FROM (VALUES (1), (2)) AS a (n) FULL OUTER JOIN (VALUES (2), (3)) AS b (n) USING (n) ORDER BY 1 NULLS LAST, 2

-- right join
SELECT p.id, i.order_id FROM order_items i RIGHT JOIN products p ON p.id = i.product_id AND i.order_id = 5 ORDER BY 1

-- natural and cross join
SELECT count(*) FROM (SELECT id AS customer_id FROM customers) c NATURAL JOIN orders CROSS JOIN (SELECT 1 AS one) x

-- self join
SELECT e.name, m.name AS manager FROM employees e LEFT JOIN employees m ON m.id = e.manager_id ORDER BY e.id LIMIT 6

-- nested join
SELECT count(*) FROM customers c LEFT JOIN (orders o JOIN order_items i ON i.order_id = o.id) ON o.customer_id = c.id

-- lateral subquery
SELECT c.id, last.id, last.total FROM customers c CROSS JOIN LATERAL (SELECT o.id, o.total FROM orders o WHERE o.customer_id = c.id ORDER BY o.placed_at DESC LIMIT 2) AS last WHERE c.id < 6 ORDER BY 1, 2

-- left join lateral
SELECT c.id, s.n FROM customers c LEFT JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.id) s ON true ORDER BY c.id LIMIT 5

-- set operations
(SELECT customer_id FROM orders WHERE status = 'paid' INTERSECT SELECT customer_id FROM orders WHERE status = 'refunded') EXCEPT SELECT id FROM customers WHERE country = 'DE' ORDER BY 1

-- union of constants
SELECT 'a' AS kind, count(*) FROM orders UNION ALL SELECT 'b', count(*) FROM customers UNION SELECT 'c', 0 ORDER BY kind

-- values
VALUES (1, 'one'), (2, 'two'), (3, NULL)

-- values in from
SELECT v.label, count(o.id) FROM (VALUES ('small', 0, 100), ('large', 100, 1000)) AS v (label, low, high) LEFT JOIN orders o ON o.total >= v.low AND o.total < v.high GROUP BY v.label ORDER BY v.label

-- limit and offset
SELECT id FROM orders ORDER BY total DESC, id LIMIT 5 OFFSET 10

-- fetch with ties
SELECT id, status FROM orders ORDER BY status FETCH FIRST 3 ROWS WITH TIES

-- order by nulls and expression
SELECT id, discount FROM orders ORDER BY discount DESC NULLS LAST, -id LIMIT 5

-- dates
SELECT date '2024-02-28' + 2, date '2024-03-01' - date '2024-02-01', date '2024-01-31' + interval '1 month', '2024-05-05'::date, current_date > date '2020-01-01', date(timestamp '2024-01-02 03:04:05')

-- date truncation
SELECT date_trunc('week', placed_at) AS week, count(*) FROM orders GROUP BY 1 ORDER BY 1 LIMIT 8

-- extract every part
SELECT extract(epoch FROM placed_at), extract(dow FROM placed_at), extract(isodow FROM placed_at), extract(doy FROM placed_at), extract(week FROM placed_at), extract(quarter FROM placed_at), extract(isoyear FROM placed_at), extract(hour FROM placed_at), date_part('minute', placed_at) FROM orders ORDER BY id LIMIT 3

-- at time zone
SELECT created_at AT TIME ZONE 'Europe/Berlin', (created_at AT TIME ZONE 'UTC')::date, timestamp '2024-07-01 12:00' AT TIME ZONE 'America/New_York', timestamp '2024-07-01 12:00' AT TIME ZONE 'UTC' AT TIME ZONE 'Asia/Tokyo' FROM customers ORDER BY id LIMIT 3

-- intervals
SELECT interval '1 day 2 hours', INTERVAL '90' MINUTE, '2 weeks'::interval, 3 * interval '1 hour', interval '1 day' / 4, make_interval(days => 3, hours => 4), justify_hours(interval '30 hours'), extract(epoch FROM interval '1 hour')

-- age and overlaps
SELECT age(date '2024-03-01', date '2020-02-29'), (date '2024-01-01', date '2024-02-01') OVERLAPS (date '2024-01-15', date '2024-03-01'), isfinite(date '2024-01-01')

-- date_bin
SELECT date_bin('15 minutes', at, timestamp '2024-01-01') AS bin, count(*) FROM events GROUP BY 1 ORDER BY 1 LIMIT 5

-- formatting dates and numbers
SELECT to_char(placed_at, 'YYYY-MM-DD"T"HH24:MI'), to_char(total, 'FM999G990D00'), to_date('05 Dec 2000', 'DD Mon YYYY'), to_timestamp('2024-01-01 10:00', 'YYYY-MM-DD HH24:MI') > now(), to_number('12,454.8', '99G999D9'), to_timestamp(0) FROM orders ORDER BY id LIMIT 2

-- making dates
SELECT make_date(2024, 2, 29), make_time(8, 15, 23.5), make_timestamp(2013, 7, 15, 8, 15, 23.5), make_timestamptz(2024, 1, 1, 0, 0, 0, 'UTC')

-- now in a filter
SELECT count(*) FROM orders WHERE placed_at < now() AND placed_at < current_timestamp AND placed_at > now() - interval '100 years' AND placed_at::time < localtime + interval '24 hours' OR placed_at > CURRENT_DATE

-- cohort analysis
WITH first AS (SELECT customer_id, date_trunc('month', min(placed_at)) AS cohort FROM orders GROUP BY customer_id) SELECT cohort, (extract(year FROM age(date_trunc('month', o.placed_at), cohort)) * 12 + extract(month FROM age(date_trunc('month', o.placed_at), cohort)))::int AS months, count(DISTINCT o.customer_id) FROM orders o JOIN first USING (customer_id) GROUP BY 1, 2 ORDER BY 1, 2

-- sessions from events
SELECT customer_id, session, min(at), count(*) FROM (SELECT customer_id, at, sum(fresh) OVER (PARTITION BY customer_id ORDER BY at) AS session FROM (SELECT customer_id, at, CASE WHEN at - lag(at) OVER (PARTITION BY customer_id ORDER BY at) < interval '30 minutes' THEN 0 ELSE 1 END AS fresh FROM events) a) b GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 10

-- json arrows
SELECT profile -> 'address' ->> 'city', profile #>> '{address,zip}', profile #> '{flags,0}', (profile ->> 'seats')::int, profile -> 'flags' -> 0 FROM customers ORDER BY id LIMIT 5

-- jsonb containment
SELECT id FROM customers WHERE profile @> '{"plan": "pro"}' AND profile ? 'seats' AND profile ?| ARRAY['x', 'plan'] AND profile ?& ARRAY['plan', 'score'] AND '{"seats": 1}' <@ profile OR id = 1 ORDER BY id

-- jsonb building and removing
SELECT profile - 'address' - 'flags', profile #- '{address,zip}', profile || '{"extra": true}', jsonb_set(profile, '{plan}', '"gold"'), jsonb_insert('{"a": [1]}', '{a,0}', '0'), jsonb_strip_nulls('{"a": null}') FROM customers ORDER BY id LIMIT 2

-- jsonb subscript
SELECT profile['address']['city'], profile['seats'] FROM customers ORDER BY id LIMIT 2

-- jsonb path
SELECT jsonb_path_query_array(profile, '$.flags[*]'), jsonb_path_exists(profile, '$.seats ? (@ > 5)'), profile @? '$.flags[*] ? (@ == "a")', profile @@ '$.seats > 3', jsonb_path_query_first(profile, '$.address.city') FROM customers ORDER BY id LIMIT 4

-- jsonb each
SELECT e.key, count(*) FROM customers, jsonb_each(profile) AS e GROUP BY e.key ORDER BY e.key

-- jsonb each text with columns
SELECT id, k, v FROM customers, jsonb_each_text(profile -> 'address') AS a (k, v) WHERE id < 3 ORDER BY id, k

-- jsonb array elements
SELECT c.id, f.value FROM customers c, jsonb_array_elements_text(c.profile -> 'flags') AS f WHERE c.id < 8 ORDER BY 1, 2

-- jsonb array elements with ordinality
SELECT c.id, f.flag, f.n FROM customers c LEFT JOIN LATERAL jsonb_array_elements(c.profile -> 'flags') WITH ORDINALITY AS f (flag, n) ON true WHERE c.id < 5 ORDER BY 1, 3

-- jsonb object keys
SELECT DISTINCT jsonb_object_keys(profile) AS key FROM customers ORDER BY key

-- json to recordset
SELECT * FROM json_to_recordset('[{"a": 1, "b": "x"}, {"a": 2, "c": true}]') AS t (a int, b text, c boolean)

-- jsonb to record
SELECT c.id, r.city, r.zip FROM customers c, jsonb_to_record(c.profile -> 'address') AS r (city text, zip varchar(5)) WHERE c.id < 4 ORDER BY c.id

-- json functions on a json column
SELECT payload ->> 'page' AS page, avg((payload ->> 'ms')::int), json_typeof(min(payload::text)::json -> 'tags') FROM events GROUP BY 1 ORDER BY 1

-- json array elements and length
SELECT e.id, t.value, json_array_length(e.payload -> 'tags') FROM events e, json_array_elements_text(e.payload -> 'tags') t WHERE e.id < 4 ORDER BY 1, 2

-- json built from rows
SELECT jsonb_agg(jsonb_build_object('country', country, 'n', n) ORDER BY country) FROM (SELECT country, count(*) AS n FROM customers GROUP BY country) s

-- json pretty and typeof
SELECT jsonb_pretty('{"a": [1, 2]}'), jsonb_typeof('[]'), to_jsonb(ARRAY[1, 2]), to_json('a"b'::text), array_to_json(ARRAY[[1, 2], [3, 4]]), json_object('{a,1,b,2}')

-- full text search
SELECT id, name FROM products WHERE search @@ to_tsquery('english', 'fox | databases') ORDER BY id

-- full text rank and headline
SELECT id, ts_rank(search, q) > 0 AS ranked, ts_headline('english', description, q) FROM products, websearch_to_tsquery('english', 'running "shoes"') AS q WHERE search @@ q ORDER BY id

-- full text made on the way
SELECT count(*) FROM products WHERE to_tsvector('simple', description) @@ plainto_tsquery('simple', 'lazy dogs') AND setweight(to_tsvector('english'::regconfig, name), 'A') @@ phraseto_tsquery('english', 'product')

-- full text lexemes
SELECT tsvector_to_array(to_tsvector('english', 'The cats ran')), numnode('a & b'::tsquery), strip(to_tsvector('english', 'cats'))::text

-- numbers
SELECT abs(-1), ceil(1.2), ceiling(1.7), floor(-1.2), round(2.567, 1), trunc(2.567, 2), mod(7, 3), 7 / 2, 7 % 3, 2 ^ 10, power(2, 0.5), sqrt(2), cbrt(27), exp(1), ln(10), log(100), log(2, 8), div(9, 4), sign(-3), gcd(12, 18), lcm(4, 6), factorial(10), pi()

-- operators on bits and roots
SELECT 5 & 3, 5 | 3, 5 # 3, ~5, 1 << 4, 256 >> 2, |/ 25.0, ||/ 27.0, @ (-5)

-- trigonometry
SELECT sin(1), cos(1), tan(1), asin(0.5), acos(0.5), atan(1), atan2(1, 2), degrees(pi()), radians(180), sinh(1)

-- width bucket histogram
SELECT width_bucket(total, 0, 500, 5) AS bucket, count(*), min(total), max(total) FROM orders GROUP BY 1 ORDER BY 1

-- numeric precision
SELECT 0.1 + 0.2, 1::numeric / 3, 1e20::numeric, 12345678901234567890, 1.0::float8 / 3, 'NaN'::float8, 'Infinity'::float8

-- casts
SELECT '12'::int, CAST('1.5' AS numeric(5, 2)), 'true'::boolean, '{1,2}'::int[], '2024-01-01'::timestamp, 1::text, 3.7::int, '\x0102'::bytea, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, 65::"char"

-- typed literals
SELECT DATE '2024-01-01', TIMESTAMP '2024-01-01 10:00', TIMESTAMP WITH TIME ZONE '2024-01-01 10:00+02', TIME '10:00', INTERVAL '1 year 2 mons', NUMERIC '1.50', TEXT 'x'

-- networks
SELECT host('10.0.0.5/24'::inet), network('10.0.0.5/24'::inet)::text, masklen('10.0.0.0/8'::cidr), count(*) FROM events WHERE ip::inet << '10.0.1.0/24'

-- ranges
SELECT id, lower(during), upper(days), days @> date '2024-05-07', during && tsrange('2024-05-02', '2024-05-03'), isempty(seats), days -|- daterange('2024-05-08', '2024-05-10'), (days * daterange('2024-05-06', '2024-05-20'))::text FROM bookings ORDER BY id

-- range aggregates
SELECT room, range_agg(during)::text FROM bookings GROUP BY room ORDER BY room

-- range constructors and bounds
SELECT int4range(1, 10, '[]')::text, lower_inc(int4range(1, 5)), upper_inf(daterange('2024-01-01', NULL)), numrange(1.5, 2.5) @> 2.0, range_merge(int4range(1, 3), int4range(7, 9))::text

-- unnest of a multirange
SELECT r::text FROM unnest('{[1,3), [5,8)}'::int4multirange) AS r

-- geometry
SELECT point(1, 2) <-> point(4, 6), area(box(point(0, 0), point(2, 3)))

-- quoted identifiers
SELECT "Order ID", "Unit Price" * 2 AS "Double Price", "select" FROM "Order Details" AS "D" WHERE "D"."Unit Price" > 5 ORDER BY "Order ID"

-- unicode names and texts
SELECT größe, clé AS "ключ", 'naïve ☃' AS "表" FROM données WHERE größe LIKE '%ß' OR clé = 1 ORDER BY clé

-- schema qualified
SELECT corpus.customers.id, count(*) FROM corpus.customers JOIN corpus.orders ON corpus.orders.customer_id = corpus.customers.id GROUP BY corpus.customers.id ORDER BY 2 DESC, 1 LIMIT 3

-- pg_catalog qualified functions
SELECT pg_catalog.lower('A'), pg_catalog.count(*) FROM pg_catalog.generate_series(1, 3)

-- view
SELECT * FROM monthly_revenue ORDER BY month

-- collations
SELECT name FROM customers WHERE id < 7 ORDER BY name COLLATE "C", name COLLATE "en-x-icu" DESC

-- comments and layout
SELECT /* the key */ id -- and nothing else
FROM orders
WHERE id = 1

-- keywords as labels
SELECT count(*) AS count, max(id) AS "end", min(id) AS user, 1 AS order FROM orders

-- operators with any and patterns
SELECT count(*) FROM customers WHERE name ~ ANY (ARRAY['^A', '^B']) AND country <> ALL (ARRAY['US', 'FR'])

-- between
SELECT count(*) FROM orders WHERE total BETWEEN 100 AND 200 AND placed_at BETWEEN '2024-02-01' AND '2024-04-01' AND id NOT BETWEEN 3 AND 5

-- table sample of everything
SELECT count(*) FROM orders TABLESAMPLE BERNOULLI (100) REPEATABLE (7)

-- table sample of blocks
SELECT count(*) FROM orders AS o TABLESAMPLE SYSTEM (100)

-- median per group
SELECT department, percentile_cont(0.5) WITHIN GROUP (ORDER BY salary) FROM employees GROUP BY department ORDER BY 1

-- gaps and islands
SELECT min(n), max(n), count(*) FROM (SELECT id AS n, id - row_number() OVER (ORDER BY id) AS island FROM orders WHERE status <> 'open') s GROUP BY island ORDER BY 1 LIMIT 8

-- fill missing values
SELECT sensor, at, coalesce(value, (SELECT r2.value FROM readings r2 WHERE r2.sensor = r.sensor AND r2.at < r.at AND r2.value IS NOT NULL ORDER BY r2.at DESC LIMIT 1)) FROM readings r ORDER BY sensor, at

-- year over year
SELECT to_char(month, 'YYYY-MM'), revenue, round(revenue / nullif(lag(revenue) OVER (ORDER BY month), 0) - 1, 4) AS change FROM monthly_revenue ORDER BY month

-- funnel
SELECT count(*) FILTER (WHERE viewed) AS viewed, count(*) FILTER (WHERE clicked) AS clicked, count(*) FILTER (WHERE bought) AS bought FROM (SELECT customer_id, bool_or(kind = 'view') AS viewed, bool_or(kind = 'click') AS clicked, bool_or(kind = 'buy') AS bought FROM events GROUP BY customer_id) f

-- retention by week
SELECT date_trunc('week', at)::date AS week, count(DISTINCT customer_id) FROM events GROUP BY 1 ORDER BY 1

-- share of the best customers
SELECT round(sum(revenue) FILTER (WHERE bucket = 1) / sum(revenue), 3) AS top_share FROM (SELECT sum(total) AS revenue, ntile(10) OVER (ORDER BY sum(total) DESC) AS bucket FROM orders GROUP BY customer_id) s

-- products bought together
SELECT a.product_id, b.product_id, count(*) FROM order_items a JOIN order_items b ON b.order_id = a.order_id AND b.product_id > a.product_id GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 5

-- string search with position
SELECT id, name FROM products WHERE position('7' IN name) > 0 OR strpos(lower(description), 'cats') > 0 ORDER BY id

-- hash buckets
SELECT abs(hashtext(name)) % 4 AS bucket, count(*) FROM customers GROUP BY 1 ORDER BY 1

-- sizes and types
SELECT pg_size_pretty(123456789::bigint), pg_typeof(1.5)::text, pg_column_size(1)

-- random is honest too
SELECT random() < 2, gen_random_uuid() IS NOT NULL, clock_timestamp() >= statement_timestamp()

-- select without from
SELECT 1 AS one, NULL AS nothing, 'text', true, 2 + 2 * 2, -(3), NOT false

-- trailing semicolon
SELECT id FROM customers ORDER BY id LIMIT 1;

-- fields of a pair
SELECT id, (jsonb_each_text(profile -> 'address')).key FROM customers WHERE id < 3 ORDER BY 1, 2

-- like all
SELECT count(*) FROM customers WHERE name LIKE ALL (ARRAY['%a%', '%d%'])

-- nulls from a missing path
SELECT profile #>> '{no,such}', profile -> 'no' -> 'such' FROM customers WHERE id = 1

-- precision of the words for now
SELECT localtimestamp(0) <= current_timestamp(3) + interval '1 day'

-- group by nothing
SELECT count(*), max(total) FROM orders GROUP BY ()

-- grouping sets beside a column
SELECT country, segment, grouping(segment), count(*) FROM customers GROUP BY country, ROLLUP (segment) ORDER BY 1, 2 NULLS FIRST

-- lateral values
SELECT c.id, v.name, v.value FROM customers c CROSS JOIN LATERAL (VALUES ('name', c.name), ('country', c.country::text)) AS v (name, value) WHERE c.id < 4 ORDER BY 1, 2

-- lateral function of a column
SELECT c.id, s.n FROM customers c, LATERAL generate_series(1, c.id) AS s (n) WHERE c.id < 4 ORDER BY 1, 2

-- values with names
SELECT v.n * 2, v.letter FROM (VALUES (1, 'a'), (2, 'b')) AS v (n, letter) ORDER BY 1

-- row values in a subquery
SELECT id FROM orders WHERE (customer_id, total) IN (SELECT customer_id, max(total) FROM orders GROUP BY 1) ORDER BY id LIMIT 5

-- rows that are distinct
SELECT (1, NULL) IS DISTINCT FROM (1, NULL), ROW(1, 2) IS NOT DISTINCT FROM ROW(1, 3)

-- at time zone by an interval
SELECT timestamptz '2024-01-01 00:00+00' AT TIME ZONE INTERVAL '-08:00'

-- overlaps with an interval
SELECT (date '2001-02-16', interval '100 days') OVERLAPS (date '2001-10-30', date '2002-10-30')

-- more parts of a date
SELECT extract(century FROM at), extract(decade FROM at), extract(millennium FROM at), extract(julian FROM at), extract(microseconds FROM at), extract(milliseconds FROM at), date_part('epoch', interval '1 day') FROM events ORDER BY id LIMIT 2

-- parts of a zone
SELECT extract(timezone FROM created_at), extract(timezone_hour FROM created_at), extract(timezone_minute FROM created_at) FROM customers ORDER BY id LIMIT 1

-- slices of an array
SELECT (ARRAY[1, 2, 3])[2:], (ARRAY[1, 2, 3])[:2], (ARRAY[[1, 2], [3, 4]])[1:2][2:2], ('{1,2,3}'::int[])[2]

-- array bounds
SELECT '[0:2]={1,2,3}'::int[], array_lower('[0:2]={1,2,3}'::int[], 1), ARRAY[]::text[], ARRAY['NULL', NULL, '', 'a b', 'c"d', 'e\f', '{g}', 'h,i']

-- arrays of every sort
SELECT ARRAY[true, false], ARRAY[1.50, 2], ARRAY[date '2024-01-01'], ARRAY['\x00ff'::bytea], ARRAY['{"a": "b c"}'::jsonb], ARRAY[interval '1 day'], ARRAY[timestamp '2024-01-01 10:00'], ARRAY[1.5::float8, 'NaN'], ARRAY['10.0.0.1'::inet]

-- rows in arrays
SELECT array_agg(ROW(id, name) ORDER BY id) FROM customers WHERE id < 3

-- jsonpath with variables
SELECT jsonb_path_query('{"a": [1, 5, 9]}', 'strict $.a[*] ? (@ > $min && !(@ == 9))', '{"min": 2}'), jsonb_path_exists(profile, '$.plan ? (@ like_regex "^P" flag "i")') FROM customers WHERE id = 1

-- jsonpath arithmetic and methods
SELECT jsonb_path_query_array('[1, "2", 3.5]', '$[*].double()'), jsonb_path_query('[4]', '$[0] * 2 - 1'), '$.a[last]'::jsonpath, jsonb_path_query_first('{"a": {"b": 1}}', '$.**{2}')

-- similar to with an escape
SELECT count(*) FROM customers WHERE email SIMILAR TO 'c[0-9]+@(example|mail)!.%' ESCAPE '!' OR name NOT SIMILAR TO '(A|B)%'

-- full text with phrases
SELECT id FROM products WHERE search @@ to_tsquery('english', 'brown <-> fox | lazy <2> cats') OR search @@ ('run'::tsquery <-> 'shoe'::tsquery) ORDER BY id

-- full text queries combined
SELECT 'a'::tsquery && 'b'::tsquery || !!'c'::tsquery, 'fat & rat'::tsquery @> 'rat'::tsquery, tsquery_phrase('a', 'b', 3), ts_rank_cd('{0.1, 0.2, 0.4, 1.0}', to_tsvector('simple', 'a b'), 'a & b')

-- unnest of several arrays with ordinality
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b', 'c'], ARRAY[true]) WITH ORDINALITY AS t (a, b, c, n)

-- series of dates
SELECT generate_series(date '2024-01-01', date '2024-01-10', interval '3 days')::date AS day, generate_series(1, 2) AS n

-- string aggregate with everything
SELECT string_agg(DISTINCT name, '; ' ORDER BY name DESC) FILTER (WHERE country = 'DE') FROM customers

-- percentiles with a filter
SELECT status, percentile_cont(ARRAY[0.1, 0.9]) WITHIN GROUP (ORDER BY total) FILTER (WHERE id > 20), percentile_disc(0.5) WITHIN GROUP (ORDER BY placed_at) FROM orders GROUP BY status ORDER BY status

-- hypothetical aggregates
SELECT dense_rank(100) WITHIN GROUP (ORDER BY total), cume_dist(100) WITHIN GROUP (ORDER BY total DESC NULLS LAST), percent_rank(100) WITHIN GROUP (ORDER BY total) FROM orders

-- fetch with an offset
SELECT id, status FROM orders ORDER BY status OFFSET 2 ROWS FETCH NEXT 2 ROWS WITH TIES

-- distinct on two expressions
SELECT DISTINCT ON (status, date_trunc('month', placed_at)) status, id FROM orders ORDER BY status, date_trunc('month', placed_at), id DESC LIMIT 6

-- range of days on both sides
SELECT id, count(*) OVER (ORDER BY placed_at RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '2 days' FOLLOWING) FROM orders ORDER BY id LIMIT 6

-- window of a window
SELECT id, sum(salary) OVER by_department, rank() OVER (w ORDER BY salary DESC, id) FROM employees WINDOW w AS (PARTITION BY department), by_department AS (w ORDER BY id) ORDER BY id LIMIT 8

-- bits
SELECT B'101' & B'011', B'101' | B'010', B'101' || B'1', ~ B'101', B'101' << 1, X'1F', 5::bit(8), length(B'1010'), get_bit(B'100', 0), '101'::varbit

-- intervals of every spelling
SELECT INTERVAL '1' YEAR, INTERVAL '1-2' YEAR TO MONTH, INTERVAL '1 12:59:10' DAY TO SECOND, INTERVAL '-1 month +2 days -03:04:05.678', interval 'P1Y2M3DT4H5M6S', interval '0', -interval '1 day'

-- geometry of points
SELECT point '(1,2)' <@ box '((0,0),(2,2))', box '((0,0),(2,2))' && box '((1,1),(3,3))', center(box '((0,0),(2,2))'), diameter(circle '((0,0),2)'), slope(point '(0,0)', point '(2,1)'), isclosed(path '((0,0),(1,1))'), npoints(polygon '((0,0),(1,1),(2,0))'), diagonal(box '((0,0),(1,1))')

-- conversions written as calls
SELECT pg_catalog.timestamptz(date '2024-01-01'), timestamptz(timestamp '2024-01-01 10:00'), pg_catalog.varchar('a'::name), money(12), macaddr8('08:00:2b:01:02:03'::macaddr), bpchar('a'::name)

-- values that are no numbers
SELECT 'Infinity'::numeric, '-Infinity'::float4, 'NaN'::numeric, 1e300::float8, 1e-7::float8, 123456789012345680::float8, 0.1::float4, -0.0::float8

-- dates at the ends of time
SELECT 'infinity'::date, '-infinity'::timestamp, '0044-03-15 BC'::date, '4713-01-01 BC'::timestamp, '12345-06-07'::date, '0099-01-01'::timestamptz

-- times with zones
SELECT time '13:14:15.678', timetz '13:14:15+02', timetz '13:14:15-03:30', timestamptz '2024-02-29 01:02:03.000004+05:30', time '24:00:00'

-- bytes
SELECT '\x'::bytea, '\x00ff27225c'::bytea, decode('AP8=', 'base64'), convert_to('ä', 'UTF8')

-- texts that look like others
SELECT E'a\nb\tc\\d', '', ' ', 'NULL', E'\u263A', 'a''b"c', repeat('x', 300), 'ab'::char(4), 'x'::"char", 'n'::name

-- documents
SELECT '{"b": 1, "a": [1.50, 1e3, 12345678901234567890, null, true, "\u00e4 \" \\ /"]}'::jsonb, '{"b" : 1,  "a":[1.50,1e3]}'::json, 'null'::jsonb, '"x"'::json, '[]'::jsonb

-- ranges of every sort
SELECT '[1,5)'::int4range, '(,)'::numrange, 'empty'::daterange, '[2024-01-01,2024-02-01]'::daterange, '{[1,3), [5,7)}'::int4multirange, '["2024-01-01 00:00","2024-01-02 00:00")'::tsrange, int8range(1, NULL)

-- types of the tenant's own
SELECT status::order_status, count(*), ARRAY['paid', 'open']::order_status[], '12.5'::corpus.percentage FROM orders GROUP BY 1 ORDER BY status::order_status

-- labels of an enum in order
SELECT enum_range(NULL::order_status), enum_first(NULL::order_status), max(status::order_status) FROM orders

-- a record
SELECT ROW(1, 'a b', NULL, 'c"d', true), (1, date '2024-01-01', ARRAY[1, 2])

-- duplicate and empty names
SELECT 1 AS a, 2 AS a, 3, 4, 'x' AS "A b", 5 AS "ä"

-- nothing at all
SELECT id, name FROM customers WHERE false

-- # since 16

-- whether a text is JSON
SELECT '{"a": 1}' IS JSON, '{"a": 1}' IS JSON OBJECT, '[1]' IS JSON ARRAY WITH UNIQUE KEYS, 'x' IS NOT JSON, '1' IS JSON SCALAR

-- objects and arrays as the standard writes them
SELECT json_object('a': 1, 'b' VALUE NULL ABSENT ON NULL), json_array(1, 'x', NULL NULL ON NULL), json_array(1, NULL RETURNING jsonb)

-- aggregates as the standard writes them
SELECT json_objectagg(id: name), json_arrayagg(name ORDER BY id DESC) FROM customers WHERE id < 4

-- any value and what else came with version 16
SELECT any_value(1), date_add(timestamptz '2024-01-01 00:00+00', '1 day', 'UTC'), round(erf(0.5)::numeric, 6), json_agg_strict(x) FROM (VALUES (1), (NULL)) AS v (x)

-- # since 17

-- a table of JSON
SELECT t.* FROM JSON_TABLE('[{"a": 1, "b": [1, 2]}, {"b": []}]'::jsonb, '$[*]' COLUMNS (n FOR ORDINALITY, a int PATH '$.a' DEFAULT 0 ON EMPTY, has boolean EXISTS PATH '$.a', NESTED PATH '$.b[*]' COLUMNS (b int PATH '$'))) AS t

-- a table of JSON of a column
SELECT c.id, t.city FROM customers c, JSON_TABLE(c.profile, '$.address' COLUMNS (city text PATH '$.city' NULL ON ERROR)) AS t WHERE c.id < 4 ORDER BY 1

-- values and parts of JSON
SELECT json_value(profile, '$.seats' RETURNING int), json_query(profile, '$.flags'), json_exists(profile, '$.plan'), json_scalar(1), json_serialize('{"a": 1}') FROM customers WHERE id < 3 ORDER BY id

-- numbers in other bases
SELECT to_bin(5), to_oct(64), uuid_extract_version('6ecd8c99-4036-403d-bf84-cf8400f67836'), unicode_assigned('a')

-- # since 18

-- what came with version 18
SELECT array_reverse(ARRAY[1, 2]), array_sort(ARRAY[2, 1]), casefold('Ä' COLLATE "en-x-icu"), crc32('a'::bytea), gamma(5), uuid_extract_version(uuidv7()), bytea(258)
