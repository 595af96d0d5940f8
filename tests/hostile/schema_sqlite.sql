CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT, country TEXT, created_at TEXT, tags TEXT, profile TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
INSERT INTO customers SELECT i, substr('AdaBobÇélDanEve', 1 + i % 5 * 3, 3) || ' ' || i,
  CASE WHEN i % 7 THEN 'c' || i || '@' || CASE i % 2 WHEN 0 THEN 'example.com' ELSE 'mail.test' END END,
  substr('DEFRUSTR', 1 + i % 4 * 2, 2), datetime('2024-01-01 08:30', (i * 77) || ' hours'),
  json_array('new', 't' || i % 3), json_object('plan', CASE i % 3 WHEN 0 THEN 'free' WHEN 1 THEN 'pro' ELSE 'team' END, 'seats', i % 11, 'address', json_object('city', CASE i % 2 WHEN 0 THEN 'Berlin' ELSE 'Paris' END))
FROM n;
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL, stock INT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24)
INSERT INTO products SELECT i, 'Product ' || i, CASE i % 3 WHEN 0 THEN 'books' WHEN 1 THEN 'games' ELSE 'tools' END, i * 3.25 + 0.99, i * 7 % 30 FROM n;
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INT REFERENCES customers, product_id INT, status TEXT, placed_at TEXT, total NUMERIC, discount REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
INSERT INTO orders SELECT i, 1 + i * 7 % 60, 1 + i * 5 % 24, CASE i % 4 WHEN 0 THEN 'open' WHEN 3 THEN 'refunded' ELSE 'paid' END,
  datetime('2024-01-05 06:00', (i * 31) || ' hours'), i * 37 % 500 + 0.25 * (i % 4), CASE WHEN i % 4 THEN i % 4 / 20.0 END, CASE WHEN i % 5 = 0 THEN 'gift, ref=' || i END FROM n;
CREATE TABLE employees (id INTEGER PRIMARY KEY, name TEXT, manager_id INT, salary INT, department TEXT, hired DATE);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
INSERT INTO employees SELECT i, 'Worker ' || i, nullif(i / 3, 0), 40000 + i * 1300 % 17000, CASE i % 3 WHEN 0 THEN 'it' WHEN 1 THEN 'sales' ELSE 'legal' END, date('2015-02-28', (i * 97) || ' days') FROM n;
CREATE TABLE "Order Details" ("Order ID" INT, "Unit Price" REAL, "select" TEXT);
INSERT INTO "Order Details" VALUES (1, 9.99, 'x'), (2, 19.5, 'y''z');
CREATE TABLE files (id INTEGER PRIMARY KEY, content BLOB);
INSERT INTO files VALUES (1, x'00ff41'), (2, NULL);
CREATE VIEW monthly_revenue AS SELECT strftime('%Y-%m', placed_at) AS month, sum(total) AS revenue FROM orders WHERE status = 'paid' GROUP BY 1;
CREATE VIRTUAL TABLE notes USING fts5(title, body);
INSERT INTO notes VALUES ('Foxes', 'A quick brown fox jumps over the lazy dog'), ('Cats', 'Cats and dogs are running'), ('Data', 'Databases store rows of data');
CREATE VIRTUAL TABLE letters USING fts4(subject, body);
INSERT INTO letters VALUES ('one', 'the first letter about foxes'), ('two', 'the second letter about data');
CREATE VIRTUAL TABLE places USING rtree(id, min_x, max_x, min_y, max_y);
INSERT INTO places VALUES (1, 0, 1, 0, 1), (2, 5, 6, 5, 6);
CREATE VIRTUAL TABLE orders_index USING fts5(note, content = 'orders', content_rowid = 'id');
INSERT INTO orders_index (orders_index) VALUES ('rebuild');
