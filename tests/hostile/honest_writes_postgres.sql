-- # plain

-- a row with all its columns
INSERT INTO employees VALUES (100, 'New', 1, 50000, 'it', '2024-02-29')

-- rows with some of them
INSERT INTO products (id, name, price) VALUES (101, 'A', 1), (102, 'B', 2.5), (103, 'It''s', NULL)

-- a default for a value
INSERT INTO products (id, name, price, weight) VALUES (104, 'D', DEFAULT, 3), (105, 'E', 4, DEFAULT)

-- an update of one row
UPDATE products SET price = 9.99 WHERE id = 1

-- an update by an expression
UPDATE products SET price = round(price * 1.1, 2), weight = greatest(weight - 1, 0) WHERE category = 'books'

-- an update of all, said so
UPDATE products SET weight = weight + 1 WHERE true

-- an update to the default
UPDATE products SET description = DEFAULT WHERE id = 2

-- an update of several columns at once
UPDATE products SET (name, weight) = ('Renamed', 7) WHERE id = 3

-- an update of several columns by a subquery
UPDATE products SET (name, category) = (SELECT p.name, p.category FROM products p WHERE p.id = 5) WHERE id = 4

-- an update by CASE
UPDATE orders SET status = CASE WHEN total > 300 THEN 'review' ELSE status END WHERE status = 'open'

-- a delete
DELETE FROM products WHERE id IN (101, 102)

-- a delete by a list
DELETE FROM products WHERE id = ANY (ARRAY[103, 104])

-- # from elsewhere

-- rows of a query
INSERT INTO products (id, name, category) SELECT 200 + id, upper(name), category FROM products WHERE id <= 3

-- rows of a series
INSERT INTO employees (id, name, hired) SELECT 200 + n, 'Worker ' || n, date '2024-01-01' + n FROM generate_series(1, 20) AS n

-- rows of an aggregate with a common table expression
WITH spent AS (SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id) INSERT INTO readings (sensor, value) SELECT 'c' || customer_id, total FROM spent WHERE total > 100

-- an update from another table
UPDATE orders SET note = c.name FROM customers AS c WHERE c.id = orders.customer_id AND c.country = 'DE'

-- an update from a list of values
UPDATE products AS p SET price = v.price FROM (VALUES (1, 3.5), (2, 4.5)) AS v (id, price) WHERE v.id = p.id

-- an update from an array
UPDATE products AS p SET weight = v.weight FROM unnest(ARRAY[7, 8], ARRAY[1.5, 2.5]) AS v (id, weight) WHERE v.id = p.id

-- a delete with another table
DELETE FROM order_items USING orders AS o WHERE o.id = order_items.order_id AND o.status = 'cancelled'

-- a delete by a common table expression
WITH worst AS (SELECT id FROM employees ORDER BY salary LIMIT 2) DELETE FROM employees WHERE id IN (SELECT id FROM worst)

-- a delete of what is double
DELETE FROM readings WHERE EXISTS (SELECT 1 FROM readings r WHERE r.sensor = readings.sensor AND r.at < readings.at)

-- # conflicts

-- nothing where it is there
INSERT INTO products (id, name) VALUES (1, 'again'), (301, 'new') ON CONFLICT DO NOTHING

-- nothing by a constraint
INSERT INTO products (id, name) VALUES (1, 'again') ON CONFLICT ON CONSTRAINT products_pkey DO NOTHING

-- an update where it is there
INSERT INTO products AS p (id, name, weight) VALUES (1, 'again', 4), (302, 'new', 4) ON CONFLICT (id) DO UPDATE SET name = excluded.name, weight = p.weight + excluded.weight

-- an update where it is there and dearer
INSERT INTO products (id, name, price) VALUES (2, 'newer', 1) ON CONFLICT (id) DO UPDATE SET price = excluded.price WHERE products.price > excluded.price RETURNING id, price

-- # what it returns

-- rows that were inserted
INSERT INTO products (id, name) VALUES (400, 'x'), (401, 'y') RETURNING id, upper(name) AS loud

-- rows that were updated
UPDATE products SET weight = weight * 2 WHERE id = 1 RETURNING *

-- rows that were deleted
DELETE FROM products WHERE id IN (400, 401) RETURNING id, name, to_jsonb(category) AS category

-- # names and values

-- dates and intervals
UPDATE orders SET placed_at = placed_at + interval '1 day', shipped_on = current_date WHERE id = 5

-- a JSON document
UPDATE customers SET profile = jsonb_set(profile, '{plan}', '"team"') WHERE profile ->> 'seats' = '3'

-- a JSON document without a part
UPDATE customers SET profile = profile - 'flags' WHERE profile @> '{"plan": "free"}'

-- an array
UPDATE customers SET tags = array_append(tags, 'vip') WHERE NOT tags @> ARRAY['vip']

-- a cast
UPDATE employees SET salary = '51000'::int WHERE id = 7

-- a window function in what is inserted
INSERT INTO employees (id, name) SELECT 500 + row_number() OVER (ORDER BY id), name FROM employees WHERE id < 5
