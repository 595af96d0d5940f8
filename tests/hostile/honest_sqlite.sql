-- totals by status
SELECT status, count(*) AS orders, sum(total) AS revenue, avg(total), min(total), max(total), total(discount) FROM orders GROUP BY status ORDER BY revenue DESC

-- count distinct and filter
SELECT count(DISTINCT customer_id), count(*) FILTER (WHERE status = 'paid') AS paid, sum(total) FILTER (WHERE discount > 0.05) FROM orders

-- having
SELECT customer_id, count(*) FROM orders GROUP BY customer_id HAVING count(*) > 3 ORDER BY 2 DESC, 1 LIMIT 10

-- group by alias
SELECT strftime('%Y-%m', placed_at) AS month, sum(total) FROM orders GROUP BY month ORDER BY month

-- group concat
SELECT country, group_concat(name, '; ') FROM (SELECT country, name FROM customers WHERE id < 9 ORDER BY name) GROUP BY country ORDER BY country

-- group concat in order
SELECT group_concat(name, ', ' ORDER BY name DESC), string_agg(country, '/' ORDER BY id) FROM customers WHERE id < 6

-- group concat distinct
SELECT group_concat(DISTINCT status) FROM orders

-- row number
SELECT id, customer_id, row_number() OVER (PARTITION BY customer_id ORDER BY placed_at) AS nth FROM orders ORDER BY id LIMIT 20

-- running total
SELECT id, total, sum(total) OVER (ORDER BY placed_at ROWS UNBOUNDED PRECEDING) AS running FROM orders ORDER BY id LIMIT 15

-- moving average
SELECT id, avg(total) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING) FROM orders ORDER BY id LIMIT 15

-- range frame
SELECT id, count(*) OVER (ORDER BY salary RANGE BETWEEN 2000 PRECEDING AND CURRENT ROW) FROM employees ORDER BY id

-- groups frame
SELECT id, sum(salary) OVER (ORDER BY department GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM employees ORDER BY id

-- lag lead and a named window
SELECT id, total - lag(total) OVER w AS change, lead(total, 2, 0) OVER w FROM orders WINDOW w AS (ORDER BY placed_at) ORDER BY id LIMIT 12

-- ranks
SELECT name, rank() OVER (ORDER BY salary DESC), dense_rank() OVER (ORDER BY salary DESC), percent_rank() OVER (ORDER BY salary), cume_dist() OVER (ORDER BY salary), ntile(4) OVER (ORDER BY salary) FROM employees ORDER BY id

-- first last and nth value
SELECT id, first_value(name) OVER (PARTITION BY department ORDER BY salary DESC, id), last_value(name) OVER (PARTITION BY department ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING), nth_value(name, 2) OVER (PARTITION BY department ORDER BY id) FROM employees ORDER BY id

-- window over an aggregate
SELECT status, round(100.0 * sum(total) / sum(sum(total)) OVER (), 2) AS share FROM orders GROUP BY status ORDER BY status

-- top n per group
SELECT * FROM (SELECT customer_id, id, total, row_number() OVER (PARTITION BY customer_id ORDER BY total DESC, id) AS rn FROM orders) WHERE rn = 1 ORDER BY customer_id LIMIT 8

-- common table expressions
WITH paid AS (SELECT * FROM orders WHERE status = 'paid'), monthly AS (SELECT strftime('%m', placed_at) AS month, sum(total) AS revenue FROM paid GROUP BY 1) SELECT month, revenue - lag(revenue) OVER (ORDER BY month) FROM monthly ORDER BY month

-- recursive numbers
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT i, i * i FROM n

-- recursive hierarchy
WITH RECURSIVE chain (id, name, depth, path) AS (SELECT id, name, 1, name FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, e.name, c.depth + 1, c.path || ' > ' || e.name FROM employees e JOIN chain c ON e.manager_id = c.id) SELECT depth, path FROM chain ORDER BY path

-- recursive calendar
WITH RECURSIVE days (day) AS (SELECT date('2024-01-05') UNION ALL SELECT date(day, '+1 day') FROM days WHERE day < '2024-01-20') SELECT day, count(o.id) FROM days LEFT JOIN orders o ON date(o.placed_at) = day GROUP BY day ORDER BY day

-- recursive string split
WITH RECURSIVE parts (word, rest) AS (SELECT '', 'a,b,c' || ',' UNION ALL SELECT substr(rest, 1, instr(rest, ',') - 1), substr(rest, instr(rest, ',') + 1) FROM parts WHERE rest <> '') SELECT word FROM parts WHERE word <> ''

-- json extract
SELECT json_extract(profile, '$.plan'), profile ->> '$.address.city', profile -> 'address', profile ->> 'seats' FROM customers ORDER BY id LIMIT 5

-- json each
SELECT c.id, j.value FROM customers c, json_each(c.tags) AS j WHERE c.id < 5 ORDER BY c.id, j.key

-- json each without alias
SELECT customers.id, json_each.value FROM customers, json_each(customers.tags) WHERE json_each.value = 't1' ORDER BY 1

-- json tree
SELECT fullkey, type, atom FROM json_tree('{"a": [1, {"b": null}], "c": "x"}') ORDER BY id

-- json each with a path
SELECT key, value FROM customers JOIN json_each(profile, '$.address') WHERE customers.id < 3 ORDER BY customers.id

-- exists over json each
SELECT count(*) FROM customers WHERE EXISTS (SELECT 1 FROM json_each(tags) WHERE value = 't2')

-- json building
SELECT json_object('id', id, 'tags', json(tags)), json_array(1, 'a', NULL), json_quote('a"b') FROM customers WHERE id = 1

-- json aggregates
SELECT json_group_array(name), json_group_object(id, name) FROM products WHERE id < 4

-- json changes
SELECT json_set('{"a": 1}', '$.b', 2), json_insert('[1]', '$[#]', 2), json_replace('{"a": 1}', '$.a', 3), json_remove('{"a": 1, "b": 2}', '$.a'), json_type('[1]'), json_valid('{x'), json_array_length('[1, 2]')

-- json pretty
SELECT json_pretty('{"a": [1, 2]}')

-- dates
SELECT date('2024-02-28', '+2 days'), datetime('2024-01-31', '+1 month'), time('12:30', '-45 minutes'), julianday('2024-01-01') - julianday('2023-01-01'), unixepoch('2024-01-01'), strftime('%Y-%W %j %w', '2024-05-05'), date('2024-05-15', 'start of month', '+1 month', '-1 day'), date('2024-05-15', 'weekday 1')

-- dates as numbers
SELECT datetime(1704067200, 'unixepoch'), datetime(2460310.5), timediff('2024-03-01', '2024-02-01'), strftime('%s', '2024-01-01') * 1

-- dates in a filter
SELECT count(*) FROM orders WHERE placed_at BETWEEN '2024-02-01' AND '2024-04-01' AND date(placed_at) >= date('2024-02-10') AND placed_at < datetime('now')

-- current words
SELECT CURRENT_DATE > '2020-01-01', length(CURRENT_TIME), CURRENT_TIMESTAMP > '2020'

-- age in days
SELECT id, CAST(julianday('2024-12-31') - julianday(hired) AS INTEGER) AS days FROM employees ORDER BY id LIMIT 5

-- text functions
SELECT upper(name), lower(name), length(name), substr(name, 1, 3), substr(name, -2), substring(name, 2, 2), replace(name, ' ', '_'), trim('  x '), ltrim('xxa', 'x'), rtrim('axx', 'x'), instr(name, ' '), hex('abc'), quote('it''s'), unicode('é'), char(233, 8364) FROM customers WHERE id < 4 ORDER BY id

-- printf and format
SELECT printf('%05d|%-5s|%.2f|%,d|%x|%%', 42, 'ab', 3.14159, 1234567, 255), format('%s has %d', name, id) FROM customers WHERE id = 2

-- concat
SELECT concat('a', NULL, 1), concat_ws('-', 'a', NULL, 'b'), 'a' || 1 || NULL IS NULL

-- like and glob
SELECT count(*) FROM customers WHERE name LIKE 'a%' AND email NOT LIKE 'c1\_%' ESCAPE '\' AND name GLOB 'A*' AND NOT name GLOB '*[xyz]*'

-- case
SELECT id, CASE WHEN total > 300 THEN 'large' WHEN total > 100 THEN 'medium' ELSE 'small' END, CASE status WHEN 'paid' THEN 1 ELSE 0 END, iif(total > 50, 'y', 'n') FROM orders ORDER BY id LIMIT 10

-- pivot
SELECT strftime('%m', placed_at) AS month, sum(CASE WHEN status = 'paid' THEN total ELSE 0 END) AS paid, sum(CASE WHEN status = 'refunded' THEN total END) AS refunded FROM orders GROUP BY month ORDER BY month

-- coalesce and friends
SELECT coalesce(note, status), ifnull(note, '-'), nullif(status, 'open'), max(total, 100), min(total, 100, 50) FROM orders ORDER BY id LIMIT 10

-- nulls
SELECT count(*) FROM orders WHERE note IS NULL AND discount IS NOT NULL AND NOT (note IS NOT NULL)

-- distinct from
SELECT count(*) FROM orders WHERE note IS NOT DISTINCT FROM NULL AND status IS DISTINCT FROM 'open'

-- row values
SELECT id FROM orders WHERE (customer_id, status) = (8, 'paid') OR (id, 1) > (198, 0) ORDER BY id

-- row values in a subquery
SELECT id FROM orders WHERE (customer_id, id) IN (SELECT customer_id, max(id) FROM orders GROUP BY customer_id) ORDER BY id LIMIT 5

-- exists
SELECT count(*) FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.total > 400) AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.status = 'refunded')

-- in lists
SELECT count(*) FROM products WHERE category IN ('books', 'games') AND id NOT IN (SELECT product_id FROM orders WHERE total > 450)

-- scalar subqueries
SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) AS orders FROM customers c ORDER BY orders DESC, id LIMIT 5

-- joins
SELECT p.category, c.country, sum(o.total) AS revenue FROM orders o JOIN customers c ON c.id = o.customer_id JOIN products p ON p.id = o.product_id WHERE o.status = 'paid' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 6

-- outer joins
SELECT c.id, o.id FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.status = 'open' WHERE c.id < 10 ORDER BY 1, 2

-- full and right join
SELECT a.id, b.id FROM (SELECT id FROM products WHERE id < 4) a FULL JOIN (SELECT id FROM products WHERE id BETWEEN 3 AND 5) b ON a.id = b.id ORDER BY 1, 2

-- right join
SELECT p.id, o.id FROM orders o RIGHT JOIN products p ON p.id = o.product_id AND o.id < 4 ORDER BY 1, 2

-- self and cross join
SELECT e.name, m.name, x.n FROM employees e LEFT JOIN employees m ON m.id = e.manager_id CROSS JOIN (SELECT 1 AS n) x ORDER BY e.id LIMIT 6

-- natural join
SELECT count(*) FROM (SELECT id AS customer_id FROM customers) NATURAL JOIN orders

-- union intersect except
SELECT customer_id FROM orders WHERE status = 'paid' INTERSECT SELECT customer_id FROM orders WHERE status = 'refunded' EXCEPT SELECT id FROM customers WHERE country = 'DE' ORDER BY 1

-- values
VALUES (1, 'one'), (2, 'two')

-- values as a table
WITH bands (label, low, high) AS (VALUES ('small', 0, 100), ('large', 100, 1000)) SELECT label, count(o.id) FROM bands LEFT JOIN orders o ON o.total >= low AND o.total < high GROUP BY label ORDER BY label

-- limit and offset
SELECT id FROM orders ORDER BY total DESC, id LIMIT 5 OFFSET 10

-- limit with a comma
SELECT id FROM orders ORDER BY id LIMIT 10, 3

-- nulls last and collations
SELECT name, discount FROM customers c JOIN orders o ON o.customer_id = c.id ORDER BY discount DESC NULLS LAST, name COLLATE NOCASE, o.id LIMIT 5

-- numbers
SELECT abs(-1), round(2.567, 1), 7 / 2, 7 % 3, 7.0 / 2, 1e3, -5 + 2, 5 & 3, 5 | 3, ~5, 1 << 4, 256 >> 2, sign(-2), CAST('12abc' AS INTEGER), CAST(3.9 AS INT), CAST(5 AS TEXT), typeof(1.0)

-- big integers
SELECT 9223372036854775807, -9223372036854775807, 9007199254740993

-- equality in two spellings
SELECT count(*) FROM orders WHERE status == 'paid' AND id <> 3 AND id != 5

-- view
SELECT * FROM monthly_revenue ORDER BY month

-- quoted identifiers
SELECT "Order ID", [Unit Price] * 2 AS "Double Price", `select` FROM "Order Details" AS "D" WHERE "D"."Unit Price" > 5

-- unicode
SELECT name, 'naïve ☃' AS "表" FROM customers WHERE name LIKE 'Çé%' ORDER BY id

-- main schema
SELECT count(*) FROM main.customers

-- rowid
SELECT rowid, name FROM products WHERE rowid < 3

-- blobs
SELECT id, hex(content), length(content), typeof(content) FROM files ORDER BY id

-- unhex and casts to blobs
SELECT hex(unhex('4142')), CAST('abc' AS BLOB)

-- full text search
SELECT title FROM notes WHERE notes MATCH 'fox OR data' ORDER BY title

-- full text by rank with highlights
SELECT title, highlight(notes, 1, '[', ']'), snippet(notes, 1, '<', '>', '…', 4) FROM notes WHERE notes MATCH 'dogs OR dog' ORDER BY bm25(notes), title

-- full text in one column
SELECT title, rank < 0 FROM notes WHERE body MATCH 'run*' ORDER BY rank

-- full text of version 4
SELECT subject, snippet(letters) FROM letters WHERE letters MATCH 'foxes'

-- spatial index
SELECT id FROM places WHERE min_x >= 0 AND max_x <= 2

-- comments and layout
SELECT /* the key */ id -- and nothing else
FROM orders
WHERE id = 1

-- gaps and islands
SELECT min(n), max(n), count(*) FROM (SELECT id AS n, id - row_number() OVER (ORDER BY id) AS island FROM orders WHERE status <> 'open') GROUP BY island ORDER BY 1 LIMIT 8

-- median
SELECT avg(total) FROM (SELECT total FROM orders ORDER BY total LIMIT 2 - (SELECT count(*) FROM orders) % 2 OFFSET (SELECT (count(*) - 1) / 2 FROM orders))

-- histogram
SELECT CAST(total / 100 AS INT) * 100 AS bucket, count(*) FROM orders GROUP BY bucket ORDER BY bucket

-- cohort
WITH first AS (SELECT customer_id, min(strftime('%Y-%m', placed_at)) AS cohort FROM orders GROUP BY customer_id) SELECT cohort, strftime('%Y-%m', placed_at) AS month, count(DISTINCT o.customer_id) FROM orders o JOIN first USING (customer_id) GROUP BY 1, 2 ORDER BY 1, 2

-- products bought together
SELECT a.product_id, b.product_id, count(*) FROM orders a JOIN orders b ON b.customer_id = a.customer_id AND b.product_id > a.product_id GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 5

-- select without from
SELECT 1 AS one, NULL AS nil, 'text', true, 2 + 2 * 2, NOT 0

-- mathematics is [["2.0", 3.0]]
SELECT CAST(log10(100) AS TEXT), sqrt(9)

-- distance is [[1]]
SELECT count(*) FROM places WHERE 6371 * 2 * asin(sqrt(pow(sin(radians(min_x) / 2), 2) + cos(radians(min_y)) * pow(sin(radians(max_x) / 2), 2))) < 150

-- is with a value
SELECT count(*) FROM orders WHERE status IS 'paid' AND note IS NOT 'x' AND discount IS NOT NULL AND (note IS NULL) IS TRUE AND customer_id IS NOT product_id

-- not glob
SELECT count(*) FROM customers WHERE name NOT GLOB 'A*' AND country = 'DE'

-- full text of another table
SELECT o.id, i.note FROM orders_index i JOIN orders o ON o.id = i.rowid WHERE orders_index MATCH 'gift' ORDER BY o.id LIMIT 3

-- a common table expression kept and not kept
WITH a AS MATERIALIZED (SELECT id, total FROM orders), b AS NOT MATERIALIZED (SELECT id FROM a WHERE total > 100) SELECT count(*), sum(a.total) FROM a JOIN b USING (id)

-- values with their own names
SELECT column1, column2 FROM (VALUES (1, 'a'), (2, NULL)) ORDER BY 1

-- row values that are distinct
SELECT (1, 2) IS (1, 2) AS a, (1, NULL) IS NOT (1, NULL) AS b, (1, 2) < (1, 3) AS c, 1 IS DISTINCT FROM NULL AS d

-- filter in a window
SELECT id, sum(total) FILTER (WHERE status = 'paid') OVER w FROM orders WINDOW w AS (ORDER BY id) ORDER BY id LIMIT 6

-- window of a window
SELECT id, sum(salary) OVER (w ORDER BY id) FROM employees WINDOW w AS (PARTITION BY department) ORDER BY id LIMIT 6

-- blobs as literals
SELECT x'00ff', X'', hex(x'0aFF'), x'41' = CAST('A' AS BLOB), id FROM files WHERE content = x'00ff41'

-- json by path and place
SELECT profile -> '$.address' ->> 'city', tags ->> 1, tags -> '$[#-1]', json_extract(profile, '$.plan', '$.seats') FROM customers ORDER BY id LIMIT 3

-- json in one piece
SELECT json('{"b":1, "a":[1.50,1e3,null,true,"ä"]}'), json_group_array(DISTINCT country) FILTER (WHERE id < 5) FROM customers

-- json binary
SELECT json(jsonb('{"a":[1,2]}')), json(jsonb_set('{"a":1}', '$.b', 2)), hex(jsonb('[1]'))

-- dates with modifiers
SELECT date('2024-02-29', '+1 year'), datetime('2024-01-01 12:00', '+90 minutes', 'start of day'), strftime('%j %W %H:%M:%S %s', '2024-03-01 04:05:06'), datetime('2024-01-01T00:00:00.250', 'subsec'), unixepoch('2024-01-01 00:00'), date('2024-06-15', 'weekday 0')

-- numbers as they are shown
SELECT 1.0, 0.1 + 0.2, 1e15, 1e16, 123456789.125, 1e-5, 100000000000000000000, 3, 2.5e300, 9007199254740993, -9223372036854775807, 1 / 3.0

-- infinities
SELECT 1e999, -1e999, 1e999 - 1e999

-- texts as they are
SELECT 'a' || char(10) || 'b' || char(9) || 'c', '', ' ', 'it''s "x"', 'naïve ☃', NULL

-- duplicate names
SELECT 1 AS a, 2 AS a, 'x' AS "A b", NULL AS "ä"

-- nothing at all
SELECT id, name FROM customers WHERE 0

-- casts by affinity
SELECT CAST('1e3' AS NUMERIC), CAST(' 12 ' AS INTEGER), CAST(1.5 AS TEXT), CAST('abc' AS REAL), CAST(x'3132' AS TEXT), CAST(1e20 AS INTEGER), typeof(CAST('5' AS NUMERIC))

-- like with an escape
SELECT count(*) FROM customers WHERE email LIKE 'c1!_%' ESCAPE '!' OR name LIKE '_da%'

-- in an empty list
SELECT count(*) FROM customers WHERE id IN () OR id NOT IN (1, 2)

-- phrases and nearness in full text
SELECT title FROM notes WHERE notes MATCH '"quick brown" OR NEAR(cats dogs, 3)' ORDER BY title

-- prefixes and columns in full text
SELECT title FROM notes WHERE notes MATCH 'title : dat* OR {body} : rows NOT fox' ORDER BY rank, title

-- full text with weights
SELECT title, round(bm25(notes, 10.0, 1.0), 6) FROM notes WHERE notes MATCH 'data OR rows' ORDER BY bm25(notes, 10.0, 1.0)

-- compound with limits
SELECT * FROM (SELECT id FROM customers ORDER BY id LIMIT 2) UNION ALL SELECT * FROM (SELECT id FROM orders ORDER BY id DESC LIMIT 2) ORDER BY 1 DESC

-- recursive with a limit
WITH RECURSIVE t (n) AS (SELECT 1 UNION SELECT n * 2 FROM t LIMIT 8) SELECT n FROM t ORDER BY n DESC

-- unistr
SELECT unistr('\u00e4\+01F600'), unistr_quote('a'), json_array_insert('[1,3]', '$[1]', 2)
