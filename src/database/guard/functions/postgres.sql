-- The functions of pg_catalog that a query may call, by name, since the guard sees no types:
-- every overload of it is immutable or stable (a);
-- every overload takes and gives nothing but values: not what names relations or other things of
--   the catalogue (oid, regclass, xid, pg_lsn …), is the server's own (internal, cstring) or has
--   side effects as its purpose (void, trigger), nor XML, which another library reads (b);
-- at least one is there to be called, and not only the inside of an operator, an aggregate, a type
--   or an index (c);
-- and neither its name nor the list below says otherwise.
-- `./dev functions` writes what this gives on each version into postgres.txt.
WITH
denied (reason, names) AS (VALUES
  ('tells of the role, the session or the server',
    '{current_database,current_schema,current_schemas,current_setting,current_user,
      get_current_ts_config,getdatabaseencoding,getpgusername,icu_unicode_version,inet_client_addr,
      inet_client_port,inet_server_addr,inet_server_port,session_user,system_user,unicode_version,
      version}'::text[]),
  ('counts a transaction', '{txid_current,txid_current_if_assigned}'),
  ('looks up what the tenant may not read', '{row_security_active,to_regtypemod}'),
  ('makes rows of a type of the tenant''s own, whose checks it runs; json_to_record does not',
    '{json_populate_record,json_populate_recordset,jsonb_populate_record,
      jsonb_populate_record_valid,jsonb_populate_recordset}'),
  ('hands text to an XML parser',
    '{xml_is_well_formed,xml_is_well_formed_content,xml_is_well_formed_document}'),
  ('makes an array as long as it is told, at once', '{array_fill}'),
  ('undocumented: an inside of the server that nothing in the catalogue calls',
    '{dexp,dlog1,dlog10,dround,dtrunc,enum_send,int4inc,int8_sum,like,like_escape,notlike,
      numeric_div_trunc,numeric_exp,numeric_inc,numeric_ln,numeric_log,numeric_sqrt,
      similar_escape,similar_to_escape,textlen}')),
-- What a rule refuses and is allowed all the same.
allowed (reason, names) AS (VALUES
  ('volatile, for it tells the time (a)', '{clock_timestamp,timeofday}'::text[]),
  ('volatile, for it makes random numbers (a)',
    '{gen_random_uuid,random,random_normal,uuidv4,uuidv7}'),
  ('has an overload of a type that is only compared or converted, and made of nothing here (b)',
    '{age,int8,max,min,text}'),
  ('gives the name of its argument''s type (b)', '{pg_typeof}'),
  ('is documented, and the inside of something too (c)',
    '{array_append,array_cat,array_prepend,inet_merge,inet_same_family,json_extract_path,
      json_extract_path_text,jsonb_extract_path,jsonb_extract_path_text,starts_with}'),
  ('sorts rows into buckets, as many do (c)', '{hashtext}'),
  ('computes from its argument alone, whatever its name begins with',
    '{pg_column_size,pg_size_bytes,pg_size_pretty}')),
value_type (type) AS (
  SELECT oid FROM pg_type
  WHERE typnamespace = 'pg_catalog'::regnamespace
    AND (typtype IN ('r', 'm') OR typname LIKE 'any%' OR typname = ANY (
      '{bit,bool,box,bpchar,bytea,char,cidr,circle,date,float4,float8,inet,int2,int4,int8,interval,
        json,jsonb,jsonpath,line,lseg,macaddr,macaddr8,money,name,numeric,path,point,polygon,record,
        regconfig,text,time,timestamp,timestamptz,timetz,tsquery,tsvector,uuid,varbit,varchar}'))),
inside (function) AS (
  SELECT oprcode::oid FROM pg_operator
  UNION SELECT amproc::oid FROM pg_amproc
  UNION SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze]::oid[])
    FROM pg_type
  UNION SELECT unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn,
    aggmtransfn, aggminvtransfn, aggmfinalfn]::oid[]) FROM pg_aggregate
  UNION SELECT unnest(ARRAY[rngcanonical, rngsubdiff]::oid[]) FROM pg_range),
function (name, is_steady, is_of_values, is_inside) AS (
  SELECT proname::text, provolatile IN ('i', 's'),
    NOT EXISTS (
      SELECT FROM unnest(coalesce(proallargtypes, proargtypes::oid[]) || prorettype) AS used (type)
      JOIN pg_type ON pg_type.oid = used.type
      WHERE CASE WHEN typcategory = 'A' AND typelem <> 0 THEN typelem ELSE used.type END
        NOT IN (SELECT type FROM value_type)),
    oid IN (SELECT function FROM inside)
  FROM pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind <> 'p')
SELECT name
FROM function
GROUP BY name
HAVING bool_and(is_steady AND is_of_values) AND NOT bool_and(is_inside)
    AND name !~ '^(binary_upgrade|has|pg)_'
    AND NOT EXISTS (SELECT FROM denied WHERE name = ANY (names))
  OR EXISTS (SELECT FROM allowed WHERE name = ANY (names))
ORDER BY name COLLATE "C"
