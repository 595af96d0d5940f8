-- # statement: more than one, or not a change of rows

-- a second statement | one-statement
DELETE FROM customers WHERE id = 1; DROP TABLE secrets

-- a second statement after a dollar quote | one-statement
UPDATE customers SET name = $$;$$ WHERE id = 1; DROP TABLE secrets

-- a query | statement-kind
SELECT * FROM customers

-- a query with effects | statement-kind
SELECT corpus.pwn()

-- truncate | statement-kind
TRUNCATE customers

-- merge | statement-kind
MERGE INTO customers USING secrets ON true WHEN MATCHED THEN DELETE

-- merge after WITH | statement-kind
WITH a AS (SELECT 1) MERGE INTO customers USING a ON true WHEN MATCHED THEN DELETE

-- copy from a program | statement-kind
COPY customers FROM PROGRAM 'touch /tmp/tenantry-pwn'

-- copy of a change | statement-kind
COPY (DELETE FROM customers RETURNING *) TO '/tmp/tenantry-pwn'

-- a table dropped | statement-kind
DROP TABLE customers CASCADE

-- a table made | statement-kind
CREATE TABLE stolen AS SELECT * FROM secrets

-- a row level policy | statement-kind
ALTER TABLE customers DISABLE ROW LEVEL SECURITY

-- a block | statement-kind
DO $$ BEGIN DELETE FROM customers; END $$

-- a procedure | statement-kind
CALL corpus.pwn()

-- a right | statement-kind
GRANT ALL ON customers TO public

-- a role | statement-kind
SET ROLE postgres

-- a setting that lasts | statement-kind
ALTER ROLE CURRENT_USER SET search_path = pg_temp

-- the end of the transaction | statement-kind
COMMIT

-- the end of the transaction, for later | statement-kind
PREPARE TRANSACTION 'x'

-- a statement for later | statement-kind
PREPARE x AS DELETE FROM customers

-- a message | statement-kind
NOTIFY x

-- explained and executed | statement-kind
EXPLAIN ANALYZE DELETE FROM customers WHERE true

-- a change inside of a change | statement-kind
WITH gone AS (DELETE FROM secrets WHERE true RETURNING x) INSERT INTO notes (body) SELECT x FROM gone

-- a change inside of a change, recursively | statement-kind|syntax
WITH RECURSIVE a AS (UPDATE customers SET name = 'x' WHERE true RETURNING id) DELETE FROM notes WHERE true

-- everything, without saying so | write-without-where
DELETE FROM customers

-- everything, by a join | write-without-where
DELETE FROM customers USING notes

-- the children too | identifier|syntax
DELETE FROM ONLY customers WHERE true

-- a cursor's row | syntax|identifier|clause|expression
DELETE FROM customers WHERE CURRENT OF c

-- rows locked | clause
INSERT INTO notes (body) SELECT name FROM customers FOR UPDATE

-- # relation: what may not be changed or read

-- another schema | relation
INSERT INTO hidden.plans (name) VALUES ('pwn')

-- the catalogue | relation
DELETE FROM pg_class WHERE true

-- the catalogue by its schema | relation
UPDATE pg_catalog.pg_authid SET rolsuper = true WHERE true

-- the catalogue in a value | relation
INSERT INTO notes (body) VALUES ((SELECT rolpassword FROM pg_authid LIMIT 1))

-- the catalogue in SET | relation
UPDATE notes SET body = (SELECT passwd FROM pg_shadow LIMIT 1) WHERE true

-- the catalogue in FROM | relation
UPDATE notes SET body = s.setting FROM pg_settings AS s WHERE true

-- the catalogue with USING | relation
DELETE FROM notes USING pg_shadow WHERE true RETURNING pg_shadow.passwd

-- the catalogue in RETURNING | relation
DELETE FROM notes WHERE true RETURNING (SELECT string_agg(passwd, ',') FROM pg_shadow)

-- another schema on conflict | relation
INSERT INTO places (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = (SELECT name FROM hidden.plans LIMIT 1)

-- another table by the name of the first | relation
WITH places AS (SELECT name FROM hidden.plans) UPDATE places SET name = 'x' WHERE true

-- the first table by another's name | relation
WITH places AS (SELECT 1 AS id) DELETE FROM places WHERE id IN (SELECT id FROM places)

-- # column: what may be neither read nor written

-- a value of its own | column
INSERT INTO customers (id, password) VALUES (9, 'pwn')

-- by position | column
INSERT INTO customers VALUES (9, 'x', 'pwn')

-- in SET | column
UPDATE customers SET password = 'pwn' WHERE id = 1

-- in SET, with Unicode | column|syntax|identifier
UPDATE customers SET U&"p\0061ssword" = 'pwn' WHERE id = 1

-- in SET, with others | column
UPDATE customers SET (name, password) = ('x', 'pwn') WHERE id = 1

-- in SET, of a part | clause
UPDATE customers SET name.password = 'pwn' WHERE id = 1

-- to its default | column
UPDATE customers SET password = DEFAULT WHERE id = 1

-- copied to where it is read | column
UPDATE customers SET name = password WHERE true

-- copied to another table | column
INSERT INTO notes (body) SELECT password FROM customers

-- copied as the row | column
INSERT INTO notes (body) SELECT customers::text FROM customers

-- guessed | column
DELETE FROM customers WHERE password LIKE 'a%'

-- returned | column
DELETE FROM customers WHERE id = 1 RETURNING password

-- returned with all | column
UPDATE customers SET name = 'x' WHERE id = 1 RETURNING *

-- returned as the row | column
UPDATE customers AS c SET name = 'x' WHERE id = 1 RETURNING c

-- returned as it was | column
UPDATE customers SET name = 'x' WHERE id = 1 RETURNING old

-- returned as it is | column
UPDATE customers SET name = 'x' WHERE id = 1 RETURNING to_jsonb(new)

-- on conflict | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET password = 'pwn'

-- from what was not inserted | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.password

-- as the row that was not inserted | column
INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded::text

-- # function: with effects

-- a file in a value | function
INSERT INTO notes (body) VALUES (pg_read_file('/etc/passwd'))

-- a file in SET | function
UPDATE notes SET body = lo_export(1, '/tmp/tenantry-pwn')::text WHERE true

-- a wait in WHERE | function
DELETE FROM notes WHERE pg_sleep(60) IS NULL

-- a program in RETURNING | function
DELETE FROM notes WHERE true RETURNING dblink('', 'SELECT 1')

-- a setting on conflict | function
INSERT INTO places (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = set_config('role', 'postgres', false)

-- a sequence | function
INSERT INTO places (id) VALUES (nextval('numbers'))

-- a statement in a text | function
UPDATE notes SET body = query_to_xml('DELETE FROM customers', true, true, '')::text WHERE true

-- a function of the schema's own | function
INSERT INTO places (id) VALUES (corpus.pwn())

-- a large object | function
INSERT INTO places (id) VALUES (lo_from_bytea(0, 'x'))
