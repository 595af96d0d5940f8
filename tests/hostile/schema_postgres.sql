DROP SCHEMA IF EXISTS corpus CASCADE;
CREATE SCHEMA corpus;
SET search_path = corpus;
SET timezone = 'UTC';
CREATE TABLE customers (
  id int PRIMARY KEY, name text NOT NULL, email text, country char(2), segment text,
  created_at timestamptz NOT NULL, birth date, tags text[], profile jsonb);
INSERT INTO customers
  SELECT n, (ARRAY['Ada', 'Bob', 'Çelik', 'Dvořák', 'Émile', 'Fox'])[1 + n % 6] || ' ' || n,
    CASE WHEN n % 7 <> 0 THEN 'c' || n || '@' || (ARRAY['example.com', 'mail.test'])[1 + n % 2] END,
    (ARRAY['DE', 'FR', 'US', 'TR'])[1 + n % 4], (ARRAY['retail', 'wholesale', 'partner'])[1 + n % 3],
    timestamptz '2024-01-01 08:30:00+00' + n * interval '3 days 5 hours', date '1960-01-01' + n * 211,
    (ARRAY['new', 'vip', 'late', 'eu', 'beta'])[1 : n % 6],
    jsonb_build_object('plan', (ARRAY['free', 'pro', 'team'])[1 + n % 3], 'seats', n % 11,
      'address', jsonb_build_object('city', (ARRAY['Berlin', 'Paris', 'Austin', 'İzmir'])[1 + n % 4], 'zip', lpad(n::text, 5, '0')),
      'flags', to_jsonb((ARRAY['a', 'b', 'c'])[1 : n % 4]), 'score', n * 1.5)
  FROM generate_series(1, 60) AS n;
CREATE TABLE products (
  id int PRIMARY KEY, name text NOT NULL, category text, price numeric(10, 2), weight real,
  attributes jsonb, description text, search tsvector);
INSERT INTO products
  SELECT n, 'Product ' || n, (ARRAY['books', 'games', 'tools', 'garden'])[1 + n % 4], n * 3.35 + 0.99, n / 4.0,
    jsonb_build_object('colour', (ARRAY['red', 'green', 'blue'])[1 + n % 3], 'sizes', jsonb_build_array(n, n + 1), 'stock', n * 7 % 30),
    (ARRAY['A quick brown fox jumps', 'over the lazy dogs and cats', 'Databases store rows of data', 'Running shoes for runners'])[1 + n % 4],
    to_tsvector('english', (ARRAY['A quick brown fox jumps', 'over the lazy dogs and cats', 'Databases store rows of data', 'Running shoes for runners'])[1 + n % 4])
  FROM generate_series(1, 24) AS n;
CREATE TABLE orders (
  id int PRIMARY KEY, customer_id int REFERENCES customers, status text, placed_at timestamp NOT NULL,
  shipped_on date, total numeric(12, 2), discount float8, note text);
INSERT INTO orders
  SELECT n, 1 + n * 7 % 60, (ARRAY['paid', 'open', 'cancelled', 'refunded', 'paid'])[1 + n % 5],
    timestamp '2024-01-05 06:00:00' + n * interval '1 day 7 hours 11 minutes',
    CASE WHEN n % 3 <> 0 THEN date '2024-01-06' + n + n % 4 END, (n * 37 % 500) + 0.25 * (n % 4),
    CASE n % 4 WHEN 0 THEN NULL ELSE n % 4 / 20.0 END, CASE WHEN n % 5 = 0 THEN 'gift, ref=' || n END
  FROM generate_series(1, 200) AS n;
CREATE TABLE order_items (order_id int, line int, product_id int, quantity int, price numeric(10, 2), PRIMARY KEY (order_id, line));
INSERT INTO order_items
  SELECT o.id, l, 1 + (o.id * 5 + l * 3) % 24, 1 + (o.id + l) % 5, p.price
  FROM orders o, generate_series(1, 3) AS l, products p WHERE p.id = 1 + (o.id * 5 + l * 3) % 24;
CREATE TABLE employees (id int PRIMARY KEY, name text, manager_id int, salary int, department text, hired date);
INSERT INTO employees
  SELECT n, 'Worker ' || n, NULLIF(n / 3, 0), 40000 + n * 1300 % 17000, (ARRAY['sales', 'it', 'legal'])[1 + n % 3], date '2015-02-28' + n * 97
  FROM generate_series(1, 30) AS n;
CREATE TABLE events (id bigint PRIMARY KEY, customer_id int, kind text, at timestamp, lasted interval, payload json, ip text);
INSERT INTO events
  SELECT n, 1 + n % 60, (ARRAY['view', 'click', 'buy'])[1 + n * n % 3], timestamp '2024-03-30 22:00:00' + n * interval '17 minutes',
    n % 9 * interval '90 seconds', json_build_object('page', '/p/' || n % 5, 'ms', n * 13 % 700, 'tags', json_build_array('t' || n % 3, 'u')),
    '10.0.' || n % 4 || '.' || n % 250
  FROM generate_series(1, 300) AS n;
CREATE TABLE readings (sensor text, at timestamp, value float8);
INSERT INTO readings
  SELECT 's' || s, timestamp '2024-06-01' + t * interval '1 hour', CASE WHEN (s + t) % 6 <> 0 THEN s * 10 + sin(t) END
  FROM generate_series(1, 3) AS s, generate_series(0, 23) AS t;
CREATE TABLE bookings (id int PRIMARY KEY, room int, during tsrange, days daterange, seats int4range);
INSERT INTO bookings
  SELECT n, n % 3, tsrange(timestamp '2024-05-01' + n * interval '5 hours', timestamp '2024-05-01' + n * interval '5 hours' + interval '8 hours'),
    daterange(date '2024-05-01' + n, date '2024-05-04' + n), int4range(n, n + 5)
  FROM generate_series(1, 12) AS n;
CREATE TABLE "Order Details" ("Order ID" int, "Unit Price" numeric, "select" text);
INSERT INTO "Order Details" VALUES (1, 9.99, 'x'), (2, 19.5, 'y''z');
CREATE TABLE données (clé int, größe text);
INSERT INTO données VALUES (1, 'klein'), (2, 'groß');
CREATE TYPE order_status AS ENUM ('open', 'paid', 'cancelled', 'refunded');
CREATE DOMAIN percentage AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE VIEW monthly_revenue AS
  SELECT date_trunc('month', placed_at) AS month, sum(total) AS revenue FROM orders WHERE status = 'paid' GROUP BY 1;
ANALYZE customers, products, orders, order_items, employees, events, readings, bookings, "Order Details", données;
