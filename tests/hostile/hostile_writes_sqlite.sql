-- # statement: more than one, or not a change of rows

-- a second statement | one-statement
DELETE FROM customers WHERE id = 1; DROP TABLE secrets

-- a second statement after a comment | one-statement
DELETE FROM customers WHERE id = 1 /* ; */; UPDATE secrets SET x = ''

-- a query | statement-kind
SELECT * FROM customers

-- a table dropped | statement-kind
DROP TABLE customers

-- a trigger of the caller's own | statement-kind
CREATE TRIGGER t AFTER INSERT ON customers BEGIN DELETE FROM secrets; END

-- a temporary trigger | statement-kind
CREATE TEMP TRIGGER t AFTER INSERT ON customers BEGIN DELETE FROM secrets; END

-- another file | statement-kind
ATTACH '/tmp/tenantry-pwn' AS x

-- a copy in a file | statement-kind
VACUUM INTO '/tmp/tenantry-pwn'

-- a setting | statement-kind
PRAGMA writable_schema = on

-- the end of the transaction | statement-kind
COMMIT

-- a point to go back to | statement-kind
SAVEPOINT a

-- replace | statement-kind
REPLACE INTO customers (id, name) VALUES (1, 'pwn')

-- insert or replace | clause
INSERT OR REPLACE INTO customers (id, name) VALUES (1, 'pwn')

-- insert or roll back | clause
INSERT OR ROLLBACK INTO customers (id, name) VALUES (1, 'pwn')

-- update or ignore | clause
UPDATE OR IGNORE customers SET id = 1 WHERE true

-- explained | statement-kind
EXPLAIN DELETE FROM customers WHERE true

-- a change inside of a change | statement-kind|syntax
WITH gone AS (DELETE FROM customers WHERE true RETURNING id) INSERT INTO notes (body) SELECT id FROM gone

-- everything, without saying so | write-without-where
DELETE FROM customers

-- everything, by a join | write-without-where
UPDATE customers SET name = n.body FROM notes n

-- # relation: what may not be changed or read

-- another table | relation
INSERT INTO secrets (x) VALUES ('pwn')

-- another table, quoted | relation
UPDATE [secrets] SET x = 'pwn' WHERE true

-- another schema | relation
DELETE FROM temp.customers WHERE true

-- the schema | relation
UPDATE sqlite_schema SET sql = 'pwn' WHERE true

-- the schema by its old name | relation
DELETE FROM "sqlite_master" WHERE true

-- the counters | relation
UPDATE sqlite_sequence SET seq = 0 WHERE true

-- a view of another table | relation
INSERT INTO of_secrets (x) VALUES ('pwn')

-- what is behind an index | relation
DELETE FROM notes_data WHERE true

-- another table in the source | relation
INSERT INTO customers (name) SELECT x FROM secrets

-- another table in a value | relation
INSERT INTO customers (name) VALUES ((SELECT x FROM secrets))

-- another table in SET | relation
UPDATE customers SET name = (SELECT x FROM secrets) WHERE true

-- another table in FROM | relation
UPDATE customers SET name = s.x FROM secrets AS s WHERE true

-- another table in WHERE | relation
DELETE FROM customers WHERE name = (SELECT x FROM secrets)

-- another table in RETURNING | relation
DELETE FROM customers WHERE true RETURNING (SELECT x FROM secrets)

-- another table on conflict | relation
INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = (SELECT x FROM secrets)

-- another table in the condition of a conflict | relation
INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = '' WHERE EXISTS (SELECT 1 FROM secrets)

-- another table by the name of the first | relation
WITH customers AS (SELECT x AS name FROM secrets) UPDATE customers SET name = 'x' WHERE true

-- the first table by another's name | relation
WITH notes AS (SELECT x AS body FROM secrets) DELETE FROM notes WHERE body IN (SELECT body FROM notes)

-- # column: what may be neither read nor written

-- a value of its own | column
INSERT INTO customers (id, password) VALUES (9, 'pwn')

-- by position | column
INSERT INTO customers VALUES (9, 'x', 'pwn')

-- by position from a query | column
INSERT INTO customers SELECT 9, 'x', 'pwn'

-- in SET | column
UPDATE customers SET password = 'pwn' WHERE id = 1

-- in SET, in another spelling | column
UPDATE customers SET "PassWord" = 'pwn' WHERE id = 1

-- in SET, with others | column
UPDATE customers SET (name, password) = ('x', 'pwn') WHERE id = 1

-- copied to where it is read | column
UPDATE customers SET name = password WHERE true

-- copied to another table | column
INSERT INTO notes (body) SELECT password FROM customers

-- guessed | column
DELETE FROM customers WHERE password LIKE 'a%'

-- returned | column
DELETE FROM customers WHERE id = 1 RETURNING password

-- returned with all | column
UPDATE customers SET name = 'x' WHERE id = 1 RETURNING *

-- on conflict | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET password = 'pwn'

-- from what was not inserted | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.password

-- as the row | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded

-- # function: with effects

-- a library in a value | function
INSERT INTO customers (name) VALUES (load_extension('/tmp/x'))

-- a file in SET | function
UPDATE customers SET name = writefile('/tmp/tenantry-pwn', 'x') WHERE true

-- a file in WHERE | function
DELETE FROM customers WHERE readfile('/etc/passwd') IS NOT NULL

-- memory in RETURNING | function
INSERT INTO customers (id) VALUES (7) RETURNING fts3_tokenizer('x')

-- memory on conflict | function
INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = zeroblob(1000000000)
