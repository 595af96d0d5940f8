-- # statement: more than one, or not a query

-- a second statement after a comment with a quote | one-statement | prepare|denied
SELECT 1 /* ' */; DELETE FROM customers

-- a second statement after a name in brackets | one-statement|syntax | prepare|denied
SELECT 1 AS [;]; UPDATE customers SET name = ''

-- insert from a query | statement-kind | denied
INSERT INTO customers SELECT 900, 'pwn', ''

-- insert or replace | statement-kind | denied
INSERT OR REPLACE INTO customers VALUES (1, 'pwn', '')

-- replace | statement-kind | denied
REPLACE INTO customers VALUES (1, 'pwn', '')

-- an update with a query | statement-kind | denied
UPDATE customers SET name = (SELECT 'pwn')

-- delete that returns | statement-kind | denied
DELETE FROM customers RETURNING *

-- a common table expression before a delete | statement-kind | denied
WITH a AS (SELECT 1 AS id) DELETE FROM customers WHERE id IN (SELECT id FROM a)

-- upsert | statement-kind | denied
INSERT INTO customers VALUES (1, 'x', '') ON CONFLICT DO UPDATE SET name = 'pwn'

-- a table | statement-kind | denied
CREATE TABLE stolen AS SELECT * FROM secrets

-- a temporary table | statement-kind | denied
CREATE TEMP TABLE t AS SELECT 1

-- a temporary view | statement-kind | denied
CREATE TEMP VIEW customers AS SELECT * FROM secrets

-- a temporary trigger | statement-kind | denied
CREATE TEMP TRIGGER t AFTER UPDATE ON customers BEGIN DELETE FROM customers; END

-- a virtual table over files | statement-kind | denied
CREATE VIRTUAL TABLE temp.c USING csv(filename = '/etc/hostname')

-- a virtual table over pages | statement-kind | denied
CREATE VIRTUAL TABLE temp.p USING sqlite_dbpage

-- a virtual table over words | statement-kind | denied
CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, notes, row)

-- an index | statement-kind | denied
CREATE INDEX i ON customers (lower(name))

-- a column less | statement-kind | denied
ALTER TABLE customers DROP COLUMN name

-- another name | statement-kind | denied
ALTER TABLE secrets RENAME TO customers2

-- a table dropped | statement-kind | denied
DROP TABLE IF EXISTS customers

-- another file | statement-kind | denied
ATTACH 'other.db' AS other

-- a file made | statement-kind | denied
ATTACH DATABASE 'file:made.db?mode=rwc' AS made

-- a file in memory | statement-kind | denied
ATTACH ':memory:' AS m

-- a file written with a copy | statement-kind | denied|no sqlite file
VACUUM main INTO 'copy.db'

-- the own file let go | statement-kind | denied
DETACH main

-- a transaction | statement-kind | denied
BEGIN IMMEDIATE

-- the end of a transaction | statement-kind | denied
COMMIT

-- a savepoint | statement-kind | denied
SAVEPOINT a

-- statistics | statement-kind | denied
ANALYZE main

-- indexes made again | statement-kind | runs
REINDEX customers

-- explain | statement-kind | denied
EXPLAIN SELECT * FROM secrets

-- the plan of a query | statement-kind | denied
EXPLAIN QUERY PLAN SELECT * FROM secrets

-- the way back to writing | statement-kind | denied
PRAGMA query_only = OFF

-- the schema made writable | statement-kind | denied
PRAGMA main.writable_schema(1)

-- a schema that is trusted | statement-kind | denied
PRAGMA trusted_schema = ON

-- the journal in another way | statement-kind | denied
PRAGMA journal_mode = WAL

-- where temporary files are | statement-kind | denied
PRAGMA temp_store_directory = '/tmp/tenantry-pwn'

-- memory without bound | statement-kind | denied
PRAGMA soft_heap_limit(0)

-- the cache on other terms | statement-kind | denied
PRAGMA cache_size = -100000000

-- files mapped | statement-kind | denied
PRAGMA mmap_size = 1000000000000

-- a like that tells cases apart | statement-kind | denied
PRAGMA case_sensitive_like = ON

-- which files are open | statement-kind | denied
PRAGMA database_list

-- which functions there are | statement-kind | denied
PRAGMA function_list

-- a check of the whole file | statement-kind | denied
PRAGMA integrity_check

-- a version that other programs look at | statement-kind | denied
PRAGMA user_version = 7

-- a checkpoint | statement-kind | denied
PRAGMA wal_checkpoint(TRUNCATE)

-- a key | statement-kind | denied
PRAGMA rekey = 'x'

-- into a table | clause|syntax | prepare
SELECT id INTO stolen FROM customers

-- locked rows | clause|syntax | prepare
SELECT id FROM customers FOR UPDATE

-- nothing but a semicolon | one-statement | prepare
;

-- # relation: what is not the tenant's

-- another table | relation | denied
SELECT * FROM secrets

-- another table in a condition | relation | denied
SELECT id FROM customers WHERE name = (SELECT max(x) FROM secrets)

-- another table behind exists | relation | denied
SELECT EXISTS (SELECT 1 FROM secrets WHERE x LIKE 'a%')

-- another table behind limit | relation | denied
SELECT 1 LIMIT (SELECT count(*) FROM secrets)

-- another table behind order by | relation | denied
SELECT id FROM customers ORDER BY (SELECT x FROM secrets)

-- another table in a window | relation | denied
SELECT sum(id) OVER (PARTITION BY (SELECT x FROM secrets)) FROM customers

-- another table in values | relation | denied
VALUES ((SELECT x FROM secrets))

-- another table in a compound | relation | denied
SELECT 1 EXCEPT SELECT x FROM secrets

-- another table in an argument in from | relation | denied
SELECT * FROM json_each((SELECT json_group_array(x) FROM secrets))

-- another table in a row value | relation | denied
SELECT 1 WHERE (1, 2) = (SELECT x, x FROM secrets)

-- another table in any case | relation | denied
SELECT * FROM MAIN.[SeCrEtS]

-- another table by a name in accents | relation | denied
SELECT * FROM `secrets`

-- another table by a name as text | relation|syntax|identifier | denied
SELECT * FROM 'secrets'

-- another table in brackets | syntax|relation | denied
SELECT * FROM (secrets)

-- another table by an index | syntax|relation|clause | denied
SELECT * FROM secrets NOT INDEXED

-- a table on the right of in | syntax|relation | denied
SELECT 1 WHERE 'a' IN secrets

-- a view over another table | relation | denied
SELECT * FROM of_secrets

-- the schema | relation | denied
SELECT sql FROM sqlite_schema

-- the schema by its other name | relation | denied
SELECT sql FROM main.sqlite_master

-- the schema of what is temporary | relation | denied
SELECT * FROM sqlite_temp_schema

-- sequences | relation | denied|nothing there
SELECT * FROM sqlite_sequence

-- samples of indexes | relation | denied|nothing there
SELECT sample FROM sqlite_stat4

-- pages of the file | function | denied|nothing there
SELECT data FROM sqlite_dbpage('main')

-- pages and their owners | relation | denied
SELECT name, path FROM dbstat

-- which statements there are | relation | denied|nothing there
SELECT * FROM sqlite_stmt

-- columns of another table | function | denied
SELECT name FROM pragma_table_info('secrets')

-- columns of another table in a join | function | denied
SELECT p.name FROM customers c, pragma_table_xinfo('secrets') AS p

-- which files are open, as a table | relation | denied
SELECT file FROM pragma_database_list

-- which functions there are, as a table | relation|function | denied
SELECT name FROM pragma_function_list()

-- words of an index | relation | denied|nothing there
SELECT * FROM notes_vocab

-- the tables under an index | relation | denied
SELECT block FROM notes_data

-- another schema | relation | denied|nothing there
SELECT * FROM other.customers

-- a common table expression that hides another table | relation | denied
SELECT * FROM (WITH a AS (SELECT * FROM secrets) SELECT * FROM a)

-- a common table expression of the name of another | relation | denied
WITH secrets AS (SELECT * FROM main.secrets) SELECT * FROM secrets

-- another table that is kept | relation | denied
WITH a AS MATERIALIZED (SELECT * FROM secrets) SELECT * FROM a

-- another table that is not kept, under its own name | relation | denied|prepare
WITH secrets AS NOT MATERIALIZED (SELECT * FROM secrets) SELECT * FROM secrets

-- another table called by a hint | relation|syntax | prepare|denied
SELECT * FROM secrets AS materialized (x)

-- another table left out of a frame | syntax | denied
SELECT sum((SELECT count(*) FROM secrets)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING EXCLUDE TIES) FROM customers

-- another table in a list without brackets | syntax | denied
SELECT id FROM customers WHERE name IN secrets

-- another table by its index | syntax | denied|prepare
SELECT * FROM secrets NOT INDEXED

-- # column: what is denied

-- a denied column | column | denied
SELECT password FROM customers

-- a denied column by rowid | column | denied
SELECT (SELECT password FROM customers WHERE rowid = 1)

-- a denied column in another case | column | denied
SELECT PassWord FROM customers

-- a denied column in quotes | column | denied
SELECT [password] FROM customers

-- every column | column | denied
SELECT * FROM customers

-- every column in a subquery | column | denied
SELECT x.id FROM (SELECT * FROM customers) x

-- every column of an alias | column | denied
SELECT c.* FROM customers c JOIN customers d USING (id)

-- columns that join by their names | column | runs
SELECT a.id FROM customers a NATURAL JOIN customers b

-- a denied column in using | column | runs
SELECT a.id FROM customers a JOIN customers b USING (password)

-- a denied column in a condition | column | denied
SELECT id FROM customers WHERE password LIKE 'a%'

-- a denied column in an order | column | denied
SELECT id FROM customers ORDER BY password

-- a denied column in a group | column | denied
SELECT count(*) FROM customers GROUP BY password

-- a denied column in a filter | column | denied
SELECT count(*) FILTER (WHERE password > 'm') FROM customers

-- a denied column in a window | column | denied
SELECT rank() OVER (ORDER BY password) FROM customers

-- a denied column through a view | relation | denied
SELECT password FROM all_customers

-- a denied column in a table that is kept | column | denied
WITH a AS MATERIALIZED (SELECT password FROM customers) SELECT * FROM a

-- # function: side effects, files, code

-- a library | function | denied|no function
SELECT load_extension('/tmp/tenantry-pwn.so')

-- a library with an entry | function | denied|no function
SELECT LOAD_EXTENSION('/tmp/tenantry-pwn.so', 'init')

-- a file read | function | denied|no function
SELECT readfile('/etc/hostname')

-- a file written | function | denied|no function
SELECT writefile('/tmp/tenantry-pwn', 'x')

-- an editor | function | denied|no function
SELECT edit('x', 'sh')

-- a folder | function | nothing there
SELECT name FROM fsdir('/etc')

-- a tokenizer | function | denied
SELECT fts3_tokenizer('simple', x'00')

-- a pointer to the index | function | denied|no function
SELECT fts5(NULL)

-- a quoted function | function | denied
SELECT "randomblob"(1000)

-- zeros | function | denied
SELECT zeroblob(1000000)

-- what was written last | function | denied
SELECT last_insert_rowid()

-- how much was written | function | denied
SELECT total_changes()

-- how it was built | function | denied
SELECT sqlite_compileoption_get(1)

-- the source of the engine | function | denied
SELECT sqlite_source_id()

-- a message in the log | function | denied
SELECT sqlite_log(1, 'pwn')

-- offsets of what is stored | function | denied|no function
SELECT sqlite_offset(id) FROM customers

-- an error raised | function|syntax|expression | prepare
SELECT RAISE(ABORT, 'x')

-- documents merged part by part | function | denied
SELECT json_patch('{}', '{}')

-- the depth of a tree's nodes | function | denied
SELECT rtreenode(2, x'00')

-- a check of a tree | function | denied
SELECT rtreecheck('main', 'places')

-- what a match was made of | function | denied
SELECT matchinfo(notes) FROM notes WHERE notes MATCH 'x'

-- a function in from | function | nothing there
SELECT * FROM generate_series(1, 1000000000)

-- a regular expression without a function | operator|syntax | denied|no function
SELECT 'a' REGEXP 'a'

-- # wire: texts that two readers take apart differently

-- a parameter by name | parameter | parameters
SELECT @name

-- a parameter with a dollar | parameter|literal|type | parameters
SELECT $a::b(c)

-- a number in sixteens | literal | runs
SELECT 0x1f

-- a command of the program | statement-kind | prepare
.shell id

-- a comment without an end | syntax|one-statement | prepare
/* SELECT 1

-- half a byte | literal|syntax | prepare
SELECT x'0af'

-- digits of sixteen that are none | literal|syntax | prepare
SELECT x'0g'
