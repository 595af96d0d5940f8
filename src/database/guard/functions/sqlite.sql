-- The functions of the bundled engine that a query may call, by name: those it calls innocuous, in
-- every overload, which is what a schema that nobody trusts may call; less the first list below, and
-- with the second, which the engine's modules and we bring.
-- `./dev functions` writes what this gives into sqlite.txt.
WITH
denied (reason, names) AS (VALUES
  ('tells what the connection wrote', '["changes", "last_insert_rowid", "total_changes"]'),
  ('tells of the engine, or of how it keeps a value',
    '["sqlite_compileoption_get", "sqlite_compileoption_used", "sqlite_source_id",
      "sqlite_version", "subtype"]'),
  ('takes time as the product of the lengths of its arguments', '["json_patch", "jsonb_patch"]'),
  ('makes a value as long as it is told', '["randomblob", "zeroblob"]')),
allowed (reason, names) AS (VALUES
  ('full text', '["bm25", "highlight", "match", "offsets", "snippet"]'),
  ('mathematics of our own',
    '["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "ceiling", "cos", "cosh",
      "degrees", "exp", "floor", "ln", "log", "log10", "log2", "mod", "pi", "pow", "power",
      "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"]'))
SELECT name FROM pragma_function_list
WHERE builtin
GROUP BY name
HAVING min(flags & 0x200000) > 0
EXCEPT SELECT value FROM denied, json_each(names)
UNION SELECT value FROM allowed, json_each(names)
ORDER BY name;
