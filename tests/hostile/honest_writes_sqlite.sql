-- # plain

-- a row with all its columns
INSERT INTO products VALUES (100, 'Product 100', 'tools', 12.5, 3)

-- rows with some of them
INSERT INTO products (id, name, price) VALUES (101, 'A', 1), (102, 'B', 2.5), (103, 'It''s', NULL)

-- defaults only
INSERT INTO files DEFAULT VALUES

-- an update of one row
UPDATE products SET price = 9.99 WHERE id = 1

-- an update by an expression
UPDATE products SET price = round(price * 1.1, 2), stock = max(stock - 1, 0) WHERE category = 'books'

-- an update of all, said so
UPDATE products SET stock = stock + 1 WHERE true

-- an update of several columns at once
UPDATE products SET (name, stock) = ('Renamed', 7) WHERE id = 3

-- an update by CASE
UPDATE orders SET status = CASE WHEN total > 300 THEN 'review' ELSE status END WHERE status = 'open'

-- a delete
DELETE FROM products WHERE id IN (101, 102)

-- a delete of what is nowhere
DELETE FROM products WHERE id = -1

-- a delete by a pattern
DELETE FROM files WHERE content IS NULL AND id > 2

-- # from elsewhere

-- rows of a query
INSERT INTO products (id, name, category) SELECT 200 + id, upper(name), category FROM products WHERE id <= 3

-- rows of an aggregate with a common table expression
WITH spent AS (SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id) INSERT INTO files (id, content) SELECT 1000 + customer_id, total FROM spent WHERE total > 100

-- an update from another table
UPDATE orders SET note = c.name FROM customers AS c WHERE c.id = orders.customer_id AND c.country = 'DE'

-- an update by a subquery for each row
UPDATE products SET stock = (SELECT count(*) FROM orders o WHERE o.product_id = products.id) WHERE id < 10

-- a delete by a subquery
DELETE FROM orders WHERE customer_id IN (SELECT id FROM customers WHERE country = 'TR') AND status <> 'paid'

-- a delete by a common table expression
WITH worst AS (SELECT id FROM employees ORDER BY salary LIMIT 2) DELETE FROM employees WHERE id IN (SELECT id FROM worst)

-- a delete with EXISTS
DELETE FROM products AS p WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.product_id = p.id) AND p.id > 150

-- # conflicts

-- nothing where it is there
INSERT INTO products (id, name) VALUES (1, 'again'), (301, 'new') ON CONFLICT DO NOTHING

-- nothing where its key is there
INSERT INTO products (id, name) VALUES (1, 'again') ON CONFLICT (id) DO NOTHING

-- an update where it is there
INSERT INTO products (id, name, stock) VALUES (1, 'again', 4), (302, 'new', 4) ON CONFLICT (id) DO UPDATE SET name = excluded.name, stock = products.stock + excluded.stock

-- an update where it is there and older
INSERT INTO products (id, name, price) VALUES (2, 'newer', 1) ON CONFLICT (id) DO UPDATE SET price = excluded.price WHERE products.price > excluded.price

-- # what it returns

-- rows that were inserted
INSERT INTO products (id, name) VALUES (400, 'x'), (401, 'y') RETURNING id, upper(name) AS loud

-- rows that were updated
UPDATE products SET stock = stock * 2 WHERE id = 400 RETURNING *

-- rows that were deleted
DELETE FROM products WHERE id IN (400, 401) RETURNING id, name, stock

-- # names and values

-- a table and columns that need quotes
UPDATE "Order Details" SET "select" = 'z' WHERE "Order ID" = 1

-- dates
UPDATE orders SET placed_at = datetime(placed_at, '+1 day') WHERE id = 5

-- a JSON document
UPDATE customers SET profile = json_set(profile, '$.plan', 'team') WHERE json_extract(profile, '$.seats') = 3

-- a JSON list
UPDATE customers SET tags = json_insert(tags, '$[#]', 'vip') WHERE id = 9

-- bytes
INSERT INTO files (id, content) VALUES (50, CAST('bytes' AS BLOB))

-- a window function in what is inserted
INSERT INTO files (id, content) SELECT 2000 + row_number() OVER (ORDER BY id), name FROM employees

-- words that are keywords elsewhere
UPDATE employees SET department = 'sales' WHERE department IS NOT 'sales' AND name GLOB 'Worker 1*'
