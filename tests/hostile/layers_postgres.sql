DROP SCHEMA IF EXISTS corpus, hidden CASCADE;
DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'corpus_role') THEN
    CREATE ROLE corpus_role LOGIN PASSWORD 'corpus';
  END IF;
END $$;
CREATE SCHEMA corpus;
CREATE SCHEMA hidden;
CREATE TABLE corpus.customers (id int PRIMARY KEY, name text, password text);
INSERT INTO corpus.customers VALUES (1, 'Ada', 'a'), (2, 'Bob', 'b');
CREATE TABLE corpus.secrets (id int, x text);
CREATE TABLE hidden.plans (id serial PRIMARY KEY, name text);
INSERT INTO hidden.plans (name) VALUES ('canary-plan');
CREATE SEQUENCE corpus.numbers;
CREATE FUNCTION corpus.pwn() RETURNS int LANGUAGE sql AS
  $$ INSERT INTO corpus.customers VALUES (901, 'pwn') RETURNING id $$;
CREATE FUNCTION corpus.pwn_as_owner() RETURNS SETOF int LANGUAGE sql SECURITY DEFINER AS
  $$ INSERT INTO corpus.customers VALUES (902, 'pwn') RETURNING id $$;
CREATE FUNCTION corpus.pwn_row(corpus.customers) RETURNS int LANGUAGE sql AS
  $$ INSERT INTO corpus.customers VALUES (903, 'pwn') RETURNING id $$;
CREATE FUNCTION corpus.pwn_text(text) RETURNS boolean LANGUAGE sql AS
  $$ INSERT INTO corpus.customers VALUES (904, 'pwn') RETURNING true $$;
CREATE FUNCTION corpus.pwn_add(int, int) RETURNS int LANGUAGE sql AS
  $$ INSERT INTO corpus.customers VALUES (905, 'pwn') RETURNING id $$;
CREATE DOMAIN corpus.checked AS text CHECK (corpus.pwn_text(VALUE));
CREATE OPERATOR corpus.<@@> (LEFTARG = int, RIGHTARG = int, FUNCTION = corpus.pwn_add);
-- More than the role of a tenant needs: what holds is then not that it may not write.
GRANT ALL ON SCHEMA corpus TO corpus_role;
GRANT ALL ON corpus.customers, corpus.numbers TO corpus_role;
