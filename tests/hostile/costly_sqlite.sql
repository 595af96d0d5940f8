-- endless recursion
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t

-- endless rows
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t

-- recursion without duplicates
WITH RECURSIVE t (n) AS (SELECT 1 UNION SELECT n + 1 FROM t) SELECT max(n) FROM t

-- a product of many tables
SELECT count(*) FROM orders a, orders b, orders c, orders d, orders e

-- a sorted product
SELECT a.id FROM orders a, orders b, orders c, orders d ORDER BY a.id + b.id * c.id - d.id

-- distinct values of a product
SELECT count(DISTINCT a.id * 1000000 + b.id * 1000 + c.id) FROM orders a, orders b, orders c, orders d

-- a wide format
SELECT printf('%1000000000d', 1)

-- texts that double
WITH RECURSIVE t (s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t

-- replacements that multiply
SELECT length(replace(printf('%100000d', 1), ' ', printf('%100000d', 1)))

-- a large concatenation
SELECT group_concat(printf('%100000d', a.id)) FROM orders a, orders b

-- a large document
SELECT json_group_array(json_object('a', a.id, 'b', b.id)) FROM orders a, orders b, orders c

-- a slow pattern
SELECT count(*) FROM orders WHERE printf('%500000d', 1) LIKE '% % % % % % % % % % % %x'

-- a slow glob
SELECT printf('%100000d', 1) GLOB '* * * * * *x'

-- nested documents
SELECT json(replace(printf('%50000d', 0), ' ', '[') || '')

-- a tree of a large document
SELECT count(*) FROM orders, json_tree((SELECT json_group_array(id) FROM orders)), json_each((SELECT json_group_array(id) FROM orders))

-- many joins
SELECT count(*) FROM customers a, customers b, customers c, customers d, customers e, customers f, customers g, customers h, customers i, customers j

-- hexadecimal of hexadecimal
SELECT hex(hex(hex(hex(hex(printf('%500000d', 1))))))

-- a window over a product
SELECT max(s) FROM (SELECT sum(a.id) OVER (ORDER BY b.id ROWS BETWEEN 10000 PRECEDING AND 10000 FOLLOWING) AS s FROM orders a, orders b, orders c)
