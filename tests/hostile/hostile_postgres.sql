-- # statement: more than one, or not a query

-- a second statement after a comment with a quote | one-statement | 42601
SELECT 1 /* ' */; DELETE FROM customers

-- a second statement after a dollar quote | one-statement | 42601
SELECT $x$;$x$; UPDATE customers SET name = ''

-- a transaction ended and begun again | one-statement | 42601
COMMIT; BEGIN READ WRITE; INSERT INTO customers VALUES (900, 'pwn'); COMMIT

-- a nested comment that one reader ends early | one-statement | 42601
SELECT 1 /* /* */ */; DROP TABLE customers --

-- the end of the transaction alone | statement-kind | undone
COMMIT

-- the end of the transaction and a new one | statement-kind | undone
ROLLBACK AND CHAIN

-- a read-write transaction | statement-kind | 25001
SET TRANSACTION READ WRITE

-- a read-write session | statement-kind | undone
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE

-- a savepoint | statement-kind | undone
SAVEPOINT a

-- two phases | statement-kind | 25P01|0A000|55000|25006|undone
PREPARE TRANSACTION 'pwn'

-- insert from a query | statement-kind | 25006
INSERT INTO customers SELECT 900, 'pwn'

-- insert with a conflict clause | statement-kind | 25006
INSERT INTO customers VALUES (1, 'pwn') ON CONFLICT (id) DO UPDATE SET name = 'pwn'

-- a comment before an update | statement-kind | 25006
/* SELECT */ UPDATE customers SET name = 'pwn'

-- delete with using | statement-kind | 25006
DELETE FROM customers USING secrets WHERE customers.id = secrets.id

-- writing in the second common table expression | statement-kind | 25006
WITH a AS (SELECT 1), b AS (DELETE FROM customers RETURNING id) SELECT * FROM a, b

-- writing in a nested common table expression | statement-kind | 0A000
SELECT * FROM (WITH b AS (INSERT INTO customers VALUES (900, 'x') RETURNING id) SELECT * FROM b) x

-- writing behind a union | statement-kind | 42601
SELECT 1 UNION ALL (DELETE FROM customers RETURNING id)

-- a merge | statement-kind | 25006
MERGE INTO customers c USING (SELECT 900 AS id) s ON c.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (900, 'pwn')

-- truncate in the middle of a text | statement-kind | 25006|42501
TRUNCATE customers CASCADE

-- a table from a query | statement-kind | 25006
CREATE TABLE stolen AS SELECT * FROM secrets

-- a temporary table | statement-kind | 25006
CREATE TEMPORARY TABLE t AS SELECT 1 AS x

-- a temporary view over a system table | statement-kind | undone|42501|25006
CREATE TEMP VIEW v AS SELECT * FROM pg_catalog.pg_class

-- a function | statement-kind | 25006
CREATE OR REPLACE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'

-- a trigger | statement-kind | 25006|42P01
CREATE TRIGGER t BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()

-- a rule on a query | statement-kind | 25006
CREATE RULE "_RETURN" AS ON SELECT TO customers DO INSTEAD SELECT 1

-- an extension | statement-kind | 25006|42501
CREATE EXTENSION dblink

-- a role | statement-kind | 25006|42501
CREATE ROLE pwn SUPERUSER LOGIN

-- a stronger role of one's own | statement-kind | 25006|42501
ALTER ROLE CURRENT_USER SUPERUSER

-- a setting of the server | statement-kind | 25001
ALTER SYSTEM SET archive_command = 'touch /tmp/pwn'

-- a setting of the database | statement-kind | 25006|42501
ALTER DATABASE postgres SET search_path = pwn

-- rights to everyone | statement-kind | 25006|42501
GRANT SELECT ON secrets TO PUBLIC

-- a comment on a table | statement-kind | 25006|42501
COMMENT ON TABLE customers IS 'pwn'

-- an anonymous block | statement-kind | 25006
DO $$ BEGIN DELETE FROM customers; END $$

-- an anonymous block that catches | statement-kind | undone
DO $$ BEGIN DELETE FROM customers; EXCEPTION WHEN OTHERS THEN NULL; END $$

-- an anonymous block that commits | statement-kind | 2D000|25006
DO $$ BEGIN COMMIT; DELETE FROM customers; COMMIT; END $$

-- a procedure | statement-kind | 42809
CALL pwn()

-- copying in from a program | statement-kind | 42501|25006
COPY customers FROM PROGRAM 'id'

-- copying out to a file | statement-kind | 42501
COPY (SELECT * FROM customers) TO '/tmp/tenantry-pwn'

-- copying to the client | statement-kind | lost
COPY customers TO STDOUT

-- explain that executes | statement-kind | 25006
EXPLAIN (ANALYZE, BUFFERS OFF) DELETE FROM customers

-- explain of a query | statement-kind | runs
EXPLAIN SELECT 1

-- a cursor that stays | statement-kind | undone
DECLARE c CURSOR WITH HOLD FOR SELECT * FROM customers

-- all cursors | statement-kind | undone
CLOSE ALL

-- a prepared statement that stays | statement-kind | stays
PREPARE pwn AS SELECT 1

-- a reset of the session | statement-kind | 25001
DISCARD ALL

-- a search path | statement-kind | undone
SET search_path = pwn, pg_catalog

-- a limit switched off | statement-kind | undone
SET statement_timeout = 0

-- a limit switched off for the transaction | statement-kind | undone
SET LOCAL statement_timeout = 0

-- another role | statement-kind | 42501
SET ROLE postgres

-- another user | statement-kind | 42501
SET SESSION AUTHORIZATION postgres

-- settings shown | statement-kind | 42501
SHOW data_directory

-- listening | statement-kind | undone|25006
LISTEN pwn

-- notifying | statement-kind | undone|25006
NOTIFY pwn, 'x'

-- a table lock | statement-kind | undone
LOCK TABLE customers IN ACCESS EXCLUSIVE MODE

-- a library | statement-kind | 42501|58P01
LOAD 'dblink'

-- a checkpoint | statement-kind | 42501
CHECKPOINT

-- reindexing | statement-kind | 25006|42501|25001
REINDEX TABLE customers

-- vacuum in brackets | statement-kind | 25001|25006
VACUUM (FULL) customers

-- a materialized view | statement-kind | 25006|42P01
REFRESH MATERIALIZED VIEW pwn

-- a security label | statement-kind | 25006|22023
SECURITY LABEL ON TABLE customers IS 'x'

-- a foreign schema | statement-kind | 25006|42704
IMPORT FOREIGN SCHEMA a FROM SERVER b INTO corpus

-- into a new table | clause | 25006
SELECT id, name INTO stolen FROM customers

-- into a temporary table | clause | 25006
SELECT 1 AS x INTO TEMP pwn

-- into, in the arm of a union | clause | 25006
SELECT id INTO stolen FROM customers UNION SELECT 1

-- locked rows | syntax|clause | 25006|42501
SELECT id FROM customers FOR NO KEY UPDATE SKIP LOCKED

-- locked rows in a subquery | syntax|clause | 25006|42501
SELECT * FROM customers WHERE id IN (SELECT id FROM customers FOR KEY SHARE)

-- nothing but a comment | one-statement | runs
/* nothing */

-- the short form of a table | statement-kind | 42501
TABLE secrets

-- the short form of a table in a common table expression | syntax|clause | 42501
WITH x AS (TABLE secrets) SELECT * FROM x

-- # relation: what is not the tenant's

-- a table without rights | relation | 42501
SELECT * FROM hidden.plans

-- a table of another schema in a join condition | relation | 42501
SELECT 1 FROM customers c JOIN customers d ON c.id = (SELECT count(*) FROM hidden.plans)

-- a table of another schema behind having | relation | 42501
SELECT count(*) FROM customers HAVING count(*) > (SELECT max(id) FROM hidden.plans)

-- a table of another schema behind limit | relation | 42501
SELECT 1 FROM customers LIMIT (SELECT max(id) FROM hidden.plans)

-- a table of another schema behind order by | relation | 42501
SELECT 1 FROM customers ORDER BY (SELECT max(id) FROM hidden.plans)

-- a table of another schema in a window | relation | 42501
SELECT sum(id) OVER (ORDER BY (SELECT max(id) FROM hidden.plans)) FROM customers

-- a table of another schema in a filter | relation | 42501
SELECT count(*) FILTER (WHERE EXISTS (SELECT 1 FROM hidden.plans)) FROM customers

-- a table of another schema within a group | relation | 42501
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (SELECT max(id) FROM hidden.plans)) FROM customers

-- a table of another schema in an array | relation | 42501
SELECT ARRAY(SELECT id FROM hidden.plans)

-- a table of another schema in values | relation | 42501
VALUES ((SELECT max(id) FROM hidden.plans))

-- a table of another schema in case | relation | 42501
SELECT CASE WHEN EXISTS (SELECT 1 FROM hidden.plans) THEN 1 END

-- a table of another schema in a named argument | relation | 42501
SELECT make_interval(days => (SELECT max(id)::int FROM hidden.plans))::text

-- a table of another schema in grouping sets | relation | 42501
SELECT 1 FROM customers GROUP BY GROUPING SETS (((SELECT max(id) FROM hidden.plans)), ())

-- a table of another schema as a subscript | relation | 42501
SELECT (ARRAY[1, 2])[(SELECT max(id)::int FROM hidden.plans)]

-- a table of another schema in an argument in from | relation | 42501
SELECT * FROM generate_series(1, (SELECT max(id) FROM hidden.plans))

-- a table of another schema in quotes | relation | 42501
SELECT * FROM "hidden"."plans"

-- a name that common table expressions hide only inside | relation | 42501
SELECT (WITH plans AS (SELECT 1 AS id) SELECT id FROM plans), (SELECT count(*) FROM hidden.plans)

-- only, as if it were a name | relation|identifier|syntax|clause | 42501
SELECT * FROM ONLY hidden.plans

-- a star after the name | relation|syntax|clause | 42501
SELECT * FROM hidden.plans *

-- another database | relation | 0A000
SELECT * FROM template1.corpus.customers

-- password hashes | relation | 42501
SELECT rolname, rolpassword FROM pg_authid

-- password hashes by another name | relation | 42501
SELECT * FROM "pg_catalog"."pg_shadow"

-- statements of others | relation | runs
SELECT query FROM pg_stat_activity

-- statistics with values of other tables | relation | runs
SELECT most_common_vals::text FROM pg_stats

-- settings as a table | relation | runs
SELECT name, setting FROM pg_settings

-- files of the configuration | relation | 42501
SELECT r::text FROM pg_hba_file_rules AS r

-- neighbours on the server | relation | runs
SELECT datname FROM pg_database

-- names of all tables | relation | runs
SELECT table_schema, table_name FROM information_schema.tables

-- sources of functions | relation | runs
SELECT prosrc FROM pg_proc

-- prepared statements of the session | relation | runs
SELECT statement FROM pg_prepared_statements

-- large objects | relation | 42501
SELECT data FROM pg_largeobject

-- a mapping of users to servers | relation | runs|42501
SELECT umoptions FROM pg_user_mappings

-- temporary tables of others | relation | 42P01
SELECT * FROM pg_temp_3.t

-- toasted values of others | relation | 42501|42P01
SELECT * FROM pg_toast.pg_toast_1255

-- a sequence read as a table | relation | 42501|42P01
SELECT last_value FROM hidden.plans_id_seq

-- a name in unicode escapes | syntax|unsupported|function|relation|identifier | 42501
SELECT * FROM U&"hid\0064en".plans

-- a row of another table by its type | type | 42501|runs|22P02|42846
SELECT '(1,x)'::hidden.plans::text

-- a table of another schema in a table of JSON | relation | 42601|42501
SELECT t.a FROM JSON_TABLE((SELECT jsonb_agg(id) FROM hidden.plans), '$[*]' COLUMNS (a int PATH '$')) AS t

-- a table of another schema behind a path that is carried | syntax | 42501
WITH RECURSIVE t AS (SELECT id FROM hidden.plans UNION ALL SELECT id + 1 FROM t WHERE id < 3) SEARCH DEPTH FIRST BY id SET path SELECT id FROM t

-- a table of another schema in a cycle | syntax | 42501
WITH RECURSIVE t AS (SELECT id FROM hidden.plans UNION ALL SELECT id FROM t) CYCLE id SET is_cycle USING path SELECT id FROM t

-- a table of another schema left out of a frame | syntax | 42501
SELECT sum((SELECT max(id) FROM hidden.plans)) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES) FROM customers

-- a table of another schema as a member of an object | relation | 42601|42501
SELECT json_object('a': (SELECT max(name) FROM hidden.plans))

-- a table of another schema tested for JSON | relation | 42601|42501
SELECT (SELECT max(name) FROM hidden.plans) IS JSON

-- a table of another schema in a rollup of grouping sets | function | 42501
SELECT 1 FROM customers GROUP BY GROUPING SETS (ROLLUP ((SELECT max(id) FROM hidden.plans)), ())

-- a name of the catalogue as a column of JSON | type | 42601|42P01|runs
SELECT t.a FROM JSON_TABLE('["hidden.plans"]'::jsonb, '$[*]' COLUMNS (a regclass PATH '$')) AS t

-- a name of the catalogue as a nested column of JSON | type | 42601|runs
SELECT t.a FROM JSON_TABLE('[["pg_authid"]]'::jsonb, '$[*]' COLUMNS (NESTED PATH '$[*]' COLUMNS (a regclass PATH '$'))) AS t

-- a name of the catalogue returned from JSON | type | 42601|42704|22P02|runs
SELECT json_value('"pg_authid"', '$' RETURNING regclass)

-- a document that another library reads | type | runs
SELECT '<a/>'::xml::text

-- a path into a document that another library reads | function|type | runs
SELECT xpath('/a', '<a/>')::text

-- an element of a document that another library writes | syntax | runs
SELECT xmlelement(NAME a, 'x')::text

-- rows of a type of the tenant's own | function | runs
SELECT json_populate_record(NULL::customers, '{"id": 1}')::text

-- # column: what is denied; the role may read it, so that only the guard is in front of it

-- a denied column | column | runs
SELECT password FROM customers

-- a denied column in capitals | column | runs
SELECT c.PASSWORD FROM customers AS c

-- a denied column in quotes with its schema | column | runs
SELECT corpus.customers."password" FROM corpus.customers

-- every column | column | runs
SELECT * FROM customers

-- every column in a lateral join | column | runs
SELECT x.id FROM customers c, LATERAL (SELECT c.*) AS x

-- every column in an aggregate | column | runs
SELECT count(c.*) FROM customers c

-- the whole row as text | column | runs
SELECT c::text FROM customers c

-- the whole row as a document | column | runs
SELECT to_jsonb(c) FROM customers c

-- the whole row as an array | column | runs
SELECT array_agg(c)::text FROM customers c

-- the whole row in a constructor | column | runs
SELECT ROW(c.*)::text FROM customers c

-- the whole row compared | column | runs
SELECT id FROM customers c WHERE c > ROW(1, 'a'::text, 'a'::text)

-- the whole row by the name of the table | column | runs
SELECT string_agg(customers::text, '') FROM customers

-- the whole row in from | column | runs
SELECT e.value FROM customers c, jsonb_each_text(to_jsonb(c)) AS e

-- the whole row of a subquery | column | runs
SELECT x::text FROM (SELECT * FROM customers) x

-- the whole row through a common table expression | column | runs
WITH x AS (SELECT * FROM customers) SELECT json_agg(x) FROM x

-- columns by their place | column | runs
SELECT c.z FROM customers AS c (x, y, z)

-- columns of a join by their place | column | runs
SELECT j.z FROM (customers CROSS JOIN (SELECT 1 AS n) AS o) AS j (x, y, z)

-- columns that join by their names | column | runs
SELECT id FROM customers NATURAL JOIN (SELECT 'canary'::text AS password) AS guess

-- a denied column in a condition of a filter | column | runs
SELECT count(*) FILTER (WHERE password LIKE 'c%') FROM customers

-- a denied column in an order of a window | column | runs
SELECT id, rank() OVER (ORDER BY password) FROM customers

-- a denied column in distinct on | column | runs
SELECT DISTINCT ON (password) id FROM customers

-- a denied column in grouping sets | column | runs
SELECT count(*) FROM customers GROUP BY GROUPING SETS ((password), ())

-- a denied column as a field | clause | runs
SELECT (c).password FROM customers c

-- a denied column in a rollup of grouping sets | function | runs
SELECT count(*) FROM customers GROUP BY GROUPING SETS (ROLLUP (id, password), ())

-- the whole row as a member of an object | column | 42601|runs
SELECT json_objectagg('a': c) FROM customers c

-- the whole row as the name of a member | column | 42601|runs
SELECT json_objectagg(c: 1) FROM customers c

-- the whole row in a table of JSON | column | 42601|runs
SELECT t.a FROM customers c, JSON_TABLE(to_jsonb(c), '$' COLUMNS (a text PATH '$.password')) AS t

-- a denied column tested for JSON | column | 42601|runs
SELECT password IS JSON FROM customers

-- a denied column behind two signs | column | 42883
SELECT !!password FROM customers

-- # function: side effects, files, other databases, SQL as text

-- a file | function | 42501
SELECT pg_read_binary_file('/etc/hostname')::text

-- a file behind a cast | function | 42501
SELECT encode(pg_read_binary_file('PG_VERSION'), 'hex')::text

-- a file in a lateral join | function | 42501
SELECT f FROM customers c, LATERAL pg_read_file('/etc/' || c.name) f

-- a file in a condition | function | 42501
SELECT id FROM customers WHERE length(pg_read_file('PG_VERSION', 0, 10)) > id

-- a file by a quoted name with a schema | function | 42501
SELECT "pg_catalog"."pg_stat_file"('PG_VERSION')::text

-- a file by a name in capitals | function | 42501
SELECT Pg_Read_File('PG_VERSION')

-- a file in order by within an aggregate | function | 42501
SELECT array_agg(id ORDER BY pg_read_file('PG_VERSION')) FROM customers

-- a file in the default of a window frame | function | 42501
SELECT lag(id, 1, length(pg_read_file('PG_VERSION'))) OVER (ORDER BY id) FROM customers

-- a file as an argument in from | function | 42501
SELECT * FROM regexp_split_to_table(pg_read_file('PG_VERSION'), '.')

-- a folder | function | 42501
SELECT * FROM pg_ls_logdir()

-- a folder with ordinality | function | 42501
SELECT * FROM pg_ls_dir('.') WITH ORDINALITY AS d (n, i)

-- the log file | function | runs|42501
SELECT pg_current_logfile()::text

-- a large object from bytes | function | undone
SELECT lo_from_bytea(0, 'pwn'::bytea)::text

-- a large object from a file | function | 42501
SELECT lo_import('/etc/hostname')::text

-- a large object read | function | 42704|42501
SELECT lo_get(12345)::text

-- tables as XML | function | 42501
SELECT schema_to_xml('hidden', true, true, '')::text

-- a table of another schema as XML | function | 42501
SELECT table_to_xml('hidden.plans', true, false, '')::text

-- SQL as text | function | 42501
SELECT query_to_xml('SELECT * FROM hidden.plans', true, true, '')::text

-- SQL as text that writes | function | 25006
SELECT query_to_xml('SELECT corpus.pwn()', true, true, '')::text

-- SQL as text for statistics of words | function | 42501
SELECT t::text FROM ts_stat('SELECT to_tsvector(name) FROM hidden.plans') AS t

-- SQL as text for rewriting | function | 42501
SELECT ts_rewrite('a'::tsquery, 'SELECT name::tsquery, name::tsquery FROM hidden.plans')::text

-- SQL as text for a cursor | function | 34000
SELECT cursor_to_xml('c', 10, true, true, '')::text

-- an unknown function of an extension | function | 42883
SELECT dblink_connect('host=127.0.0.1 dbname=postgres')::text

-- a function of the tenant's own | function | 25006
SELECT corpus.pwn()

-- a function of the tenant's own that runs as its owner | function | 25006
SELECT * FROM corpus.pwn_as_owner()

-- a function of the tenant's own without its schema | function | 25006
SELECT pwn()::text

-- a row to a function of the tenant's own | function | 25006
SELECT pwn_row(c) FROM customers c

-- a pause in a subquery | function | timeout
SELECT (SELECT pg_sleep(30)) IS NULL

-- a pause in from | function | timeout
SELECT s::text FROM pg_sleep_for('30 seconds') AS s

-- a pause until tomorrow | function | timeout
SELECT pg_sleep_until(now() + interval '1 day')::text

-- a pause in a named window | function | timeout
SELECT sum(1) OVER w FROM customers WINDOW w AS (ORDER BY pg_sleep(30)::text)

-- a pause as a limit | function | timeout
SELECT 1 LIMIT length(pg_sleep(30)::text)

-- a pause in a column list of records | function | timeout
SELECT * FROM json_to_recordset((pg_sleep(30)::text || '[]')::json) AS r (a int)

-- another session ended | function | runs|42501
SELECT pg_terminate_backend(1)::text

-- another statement ended | function | runs|42501
SELECT pg_cancel_backend(1)::text

-- the configuration read again | function | 42501
SELECT pg_reload_conf()::text

-- the log rotated | function | 42501
SELECT pg_rotate_logfile()::text

-- a backup | function | 42501
SELECT pg_backup_start('pwn')::text

-- a new segment of the log of changes | function | 42501
SELECT pg_switch_wal()::text

-- a restore point | function | 42501
SELECT pg_create_restore_point('pwn')::text

-- a slot | function | 42501|55000
SELECT pg_create_logical_replication_slot('pwn', 'test_decoding')::text

-- a message in the log of changes | function | runs|25006
SELECT pg_logical_emit_message(false, 'pwn', 'x')::text

-- statistics reset | function | 42501
SELECT pg_stat_reset()::text

-- an extension's table for dumps | function | 42501|0A000|XX000
SELECT pg_extension_config_dump('customers', '')::text

-- a sequence moved on | function | 25006|42501
SELECT nextval('corpus.numbers')::text

-- a sequence set | function | 25006|42501
SELECT setval('corpus.numbers', 1)::text

-- a transaction number taken | function | runs
SELECT pg_current_xact_id()::text

-- a snapshot that others can see | function | runs|25006
SELECT pg_export_snapshot()::text

-- sizes of what is not the tenant's | function | runs|42501
SELECT pg_database_size('postgres')::text

-- the definition of a view | function | runs
SELECT pg_get_viewdef('pg_roles'::text)::text

-- where the server is | function | runs
SELECT inet_server_port()::text

-- rights of others | function | runs
SELECT has_table_privilege('postgres', 'pg_authid', 'SELECT')::text

-- a name looked up by a cast | type | runs
SELECT 1262::oid::regclass::text

-- a name looked up by a typed text | type | runs|42P01
SELECT (regclass 'pg_authid')::text

-- a function looked up by a cast | type | runs
SELECT 'pg_read_file(text)'::regprocedure::text

-- a role looked up by a cast | type | runs
SELECT 10::regrole::text

-- a type of another schema | type | 42501|42704
SELECT 'x'::hidden.status

-- a type of another schema in a column list | type | 42501|42704
SELECT * FROM json_to_record('{"a": "x"}') AS r (a hidden.status)

-- an operator of the tenant's own | operator|syntax | 25006
SELECT 1 OPERATOR(corpus.<@@>) 2

-- an operator of the tenant's own without its schema | operator|syntax | 25006
SELECT 1 <@@> 2

-- a field that is a function | clause | 25006
SELECT (c).pwn_row FROM customers c

-- a function by a name in unicode escapes | function|syntax|identifier | 42501
SELECT U&"pg\005fread\005ffile"('PG_VERSION')

-- a variadic call | syntax|function|clause | 42883
SELECT pg_read_file(VARIADIC ARRAY['PG_VERSION'])::text

-- an aggregate over files | function | 42501
SELECT string_agg(pg_read_file(name), '') FILTER (WHERE true) FROM customers

-- files in rows from | syntax | 42501
SELECT * FROM ROWS FROM (pg_ls_dir('.'), generate_series(1, 2)) AS x (f, n)

-- a file left out of a frame | syntax | 42501
SELECT sum(length(pg_read_file('PG_VERSION'))) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW) FROM customers

-- a file in a rollup of grouping sets | function | 42501
SELECT 1 FROM customers GROUP BY GROUPING SETS (CUBE (pg_read_file('PG_VERSION')), ())

-- a file as a list of arguments | syntax | 42501
SELECT concat(VARIADIC ARRAY[pg_read_file('PG_VERSION')])

-- a function by the name of a grouping | function | 42883
SELECT cube(1), "rollup"(2) FROM customers

-- an array as long as it is told | function | timeout|runs|54000|large
SELECT cardinality(array_fill(1, ARRAY[100000000]))

-- the number of a transaction | function | runs|25006
SELECT pg_current_xact_id_if_assigned()::text, txid_current_if_assigned()

-- settings of the session as a table of time zones | function | runs
SELECT count(*) FROM pg_timezone_abbrevs()

-- a type looked up by text | function | 42883|runs
SELECT pg_input_is_valid('1', 'corpus.checked')

-- # session: what would stay for the next caller

-- a setting for the session | function | undone
SELECT set_config('search_path', 'pwn', false)::text

-- a setting hidden in a subquery | function | undone
SELECT id FROM customers WHERE set_config('role', 'none', false) IS NOT NULL

-- the tenant's variable | function | undone
SELECT set_config('app.tenant_id', 'other', true)::text

-- a setting read | function | runs|42501
SELECT current_setting('hba_file')::text

-- a lock for the session | function | undone
SELECT pg_advisory_lock(42)::text

-- a lock tried | function | undone
SELECT pg_try_advisory_lock_shared(1, 2)::text

-- every lock let go | function | runs
SELECT pg_advisory_unlock_all()::text

-- a channel | function | undone
SELECT pg_notify('pwn', 'x')::text

-- the seed of what is random | function | stays
SELECT setseed(0.1)::text

-- channels of the session | function | runs
SELECT pg_listening_channels()::text

-- who is asking | function|expression|identifier | runs
SELECT session_user::text

-- where names are looked up | function|expression|identifier | runs
SELECT current_schemas(true)::text

-- # resource: more than a limit lets through

-- a series of a billion rows | size | timeout
SELECT count(*) FROM generate_series(1, 1000000000)

-- a series of a billion rows downwards | size | timeout
SELECT count(*) FROM generate_series(1000000000, 1, -1) AS n

-- a series of a billion rows with bounds as texts | size | timeout
SELECT count(*) FROM generate_series('1'::bigint, ('2000000000')::bigint)

-- a table filled by a function | function | timeout|42501
SELECT count(*) FROM pg_ls_tmpdir(), pg_sleep(30)

-- # wire: texts that two readers take apart differently

-- a parameter that names no place | parameter | runs|42P02|42601
SELECT $0

-- a national text | literal | runs
SELECT N'x'

-- a text that one reader thinks goes on | one-statement | 42601
SELECT 'a\'; DELETE FROM customers; --'

-- a quote in the style of another engine | syntax|identifier | 42703|42601
SELECT `name` FROM customers

-- a name in brackets | syntax|relation|identifier|clause | 42601
SELECT [name] FROM customers

-- a backslash command | statement-kind|syntax | 42601
\copy customers to '/tmp/tenantry-pwn'

-- a text and another one after a new line | unsupported|identifier | 42601|runs
SELECT 'a'
'b'

-- ODBC's function braces | syntax|clause|expression | 42601
SELECT {fn pg_sleep(30)}

-- bits that are none | literal | 22P02
SELECT B'12'

-- digits of sixteen that are none | syntax|literal | 22P02
SELECT X'0G'

-- a number that older servers take for another with a label | literal | 42601|runs
SELECT 0x1F
