//! Functions that a query may call, by the name that the engine resolves.
//!
//! Listed is what computes from its arguments alone, or tells the time. Not listed is what reads a
//! setting, a file or the catalogue, takes SQL as text (`ts_stat`, `ts_rewrite`, `query_to_xml`),
//! waits, signals, locks, keeps state in the session, or compares each part of one long value with
//! each of another (`json_patch` of `SQLite`).
//!
//! The first list is `pg_proc` of versions 15 to 18, where every overload in `pg_catalog` is
//! immutable or stable, less the above, less what only implements operators, types and indexes; and
//! of the volatile ones those that only make random numbers or tell the time.

use super::Dialect;

/// Whether `name`, as the engine folds it, may be called.
pub(in crate::database) fn is_allowed(dialect: Dialect, name: &str) -> bool {
    match dialect {
        Dialect::Postgres => POSTGRES.binary_search(&name).is_ok(),
        Dialect::Sqlite => {
            let name = name.to_ascii_lowercase();
            // The others are how the authorizer is told of operators and of words without brackets.
            SQLITE.binary_search(&name.as_str()).is_ok()
                || matches!(
                    &*name,
                    "->" | "->>" | "current_date" | "current_time" | "current_timestamp" | "match"
                )
        }
    }
}

/// Whether the rows of `name` may be read in FROM.
pub(super) fn is_allowed_in_from(dialect: Dialect, name: &str) -> bool {
    match dialect {
        // Any function is a table of its rows there.
        Dialect::Postgres => is_allowed(dialect, name),
        Dialect::Sqlite => matches!(name, "json_each" | "json_tree"),
    }
}

/// Whether `name` may be called without brackets.
pub(super) fn is_allowed_bare(name: &str) -> bool {
    matches!(
        name,
        "current_date" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp"
    )
}

/// Whether `name` is a collation that comes with `SQLite`.
pub(super) fn is_collation(name: &str) -> bool {
    matches!(name, "binary" | "nocase" | "rtrim")
}

/// Sorted.
#[rustfmt::skip]
const POSTGRES: &[&str] = &[
    "abbrev", "abs", "acos", "acosd", "acosh", "age", "all", "any_value", "area", "array_agg",
    "array_append", "array_cat", "array_dims", "array_length", "array_lower", "array_ndims",
    "array_position", "array_positions", "array_prepend", "array_remove", "array_replace",
    "array_reverse", "array_sort", "array_to_json", "array_to_string", "array_to_tsvector",
    "array_upper", "ascii", "asin", "asind", "asinh", "atan", "atan2", "atan2d", "atand",
    "atanh", "avg", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "bool_and",
    "bool_or", "box", "broadcast", "btrim", "cardinality", "casefold", "cbrt", "ceil",
    "ceiling", "center", "char_length", "character_length", "chr", "circle", "clock_timestamp",
    "coalesce", "concat", "concat_ws", "convert", "convert_from", "convert_to", "corr", "cos",
    "cosd", "cosh", "cot", "cotd", "count", "covar_pop", "covar_samp", "crc32", "crc32c",
    "cume_dist", "current_time", "current_timestamp", "date", "date_add", "date_bin",
    "date_part", "date_subtract", "date_trunc", "datemultirange", "daterange", "decode",
    "degrees", "dense_rank", "diameter", "div", "encode", "enum_first", "enum_last",
    "enum_range", "erf", "erfc", "every", "exp", "factorial", "family", "first_value", "float4",
    "float8", "floor", "format", "gamma", "gcd", "gen_random_uuid", "generate_series",
    "generate_subscripts", "get_bit", "get_byte", "greatest", "grouping", "hashtext", "height",
    "host", "hostmask", "inet_merge", "inet_same_family", "initcap", "int2", "int4",
    "int4multirange", "int4range", "int8", "int8multirange", "int8range", "is_normalized",
    "isempty", "isfinite", "json_agg", "json_agg_strict", "json_array", "json_array_elements",
    "json_array_elements_text", "json_array_length", "json_arrayagg", "json_build_array",
    "json_build_object", "json_each", "json_each_text", "json_exists", "json_extract_path",
    "json_extract_path_text", "json_object", "json_object_agg", "json_object_agg_strict",
    "json_object_agg_unique", "json_object_agg_unique_strict", "json_object_keys",
    "json_objectagg", "json_query", "json_scalar", "json_serialize", "json_strip_nulls",
    "json_to_record", "json_to_recordset", "json_to_tsvector", "json_typeof", "json_value",
    "jsonb_agg", "jsonb_agg_strict", "jsonb_array_elements", "jsonb_array_elements_text",
    "jsonb_array_length", "jsonb_build_array", "jsonb_build_object", "jsonb_each",
    "jsonb_each_text", "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_insert",
    "jsonb_object", "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict", "jsonb_object_keys", "jsonb_path_exists",
    "jsonb_path_exists_tz", "jsonb_path_match", "jsonb_path_match_tz", "jsonb_path_query",
    "jsonb_path_query_array", "jsonb_path_query_array_tz", "jsonb_path_query_first",
    "jsonb_path_query_first_tz", "jsonb_path_query_tz", "jsonb_pretty", "jsonb_set",
    "jsonb_set_lax", "jsonb_strip_nulls", "jsonb_to_record", "jsonb_to_recordset",
    "jsonb_to_tsvector", "jsonb_typeof", "justify_days", "justify_hours", "justify_interval",
    "lag", "last_value", "lcm", "lead", "least", "left", "length", "lgamma", "ln", "localtime",
    "localtimestamp", "log", "log10", "lower", "lower_inc", "lower_inf", "lpad", "lseg",
    "ltrim", "make_date", "make_interval", "make_time", "make_timestamp", "make_timestamptz",
    "masklen", "max", "md5", "min", "min_scale", "mod", "mode", "multirange", "netmask",
    "network", "normalize", "now", "npoints", "nth_value", "ntile", "nullif", "num_nonnulls",
    "num_nulls", "numeric", "nummultirange", "numnode", "numrange", "octet_length", "overlay",
    "parse_ident", "path", "percent_rank", "percentile_cont", "percentile_disc",
    "pg_column_size", "pg_size_bytes", "pg_size_pretty", "pg_typeof", "phraseto_tsquery", "pi",
    "plainto_tsquery", "point", "position", "pow", "power", "querytree", "quote_ident",
    "quote_literal", "quote_nullable", "radians", "radius", "random", "random_normal",
    "range_agg", "range_intersect_agg", "range_merge", "rank", "regexp_count", "regexp_instr",
    "regexp_like", "regexp_match", "regexp_matches", "regexp_replace", "regexp_split_to_array",
    "regexp_split_to_table", "regexp_substr", "regr_avgx", "regr_avgy", "regr_count",
    "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "repeat",
    "replace", "reverse", "right", "round", "row", "row_number", "row_to_json", "rpad", "rtrim",
    "scale", "set_bit", "set_byte", "set_masklen", "setweight", "sha224", "sha256", "sha384",
    "sha512", "sign", "sin", "sind", "sinh", "split_part", "sqrt", "starts_with",
    "statement_timestamp", "stddev", "stddev_pop", "stddev_samp", "string_agg",
    "string_to_array", "string_to_table", "strip", "strpos", "substr", "substring", "sum",
    "tan", "tand", "tanh", "text", "timeofday", "timezone", "to_ascii", "to_bin", "to_char",
    "to_date", "to_hex", "to_json", "to_jsonb", "to_number", "to_oct", "to_timestamp",
    "to_tsquery", "to_tsvector", "transaction_timestamp", "translate", "trim", "trim_array",
    "trim_scale", "trunc", "ts_delete", "ts_filter", "ts_headline", "ts_rank", "ts_rank_cd",
    "tsmultirange", "tsquery_phrase", "tsrange", "tstzmultirange", "tstzrange",
    "tsvector_to_array", "unicode_assigned", "unistr", "unnest", "upper", "upper_inc",
    "upper_inf", "uuid_extract_timestamp", "uuid_extract_version", "uuidv4", "uuidv7",
    "var_pop", "var_samp", "variance", "websearch_to_tsquery", "width", "width_bucket",
];

/// Sorted.
#[rustfmt::skip]
const SQLITE: &[&str] = &[
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg", "bm25", "ceil",
    "ceiling", "char", "coalesce", "concat", "concat_ws", "cos", "cosh", "count", "cume_dist",
    "date", "datetime", "degrees", "dense_rank", "exp", "first_value", "floor", "format",
    "glob", "group_concat", "hex", "highlight", "if", "ifnull", "iif", "instr", "json",
    "json_array", "json_array_length", "json_error_position", "json_extract",
    "json_group_array", "json_group_object", "json_insert", "json_object", "json_pretty",
    "json_quote", "json_remove", "json_replace", "json_set", "json_type", "json_valid", "jsonb",
    "jsonb_array", "jsonb_extract", "jsonb_group_array", "jsonb_group_object", "jsonb_insert",
    "jsonb_object", "jsonb_remove", "jsonb_replace", "jsonb_set", "julianday", "lag",
    "last_value", "lead", "length", "like", "likelihood", "likely", "ln", "log", "log10",
    "log2", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif",
    "octet_length", "offsets", "percent_rank", "pi", "pow", "power", "printf", "quote",
    "radians", "random", "rank", "replace", "round", "row_number", "rtrim", "sign", "sin",
    "sinh", "snippet", "soundex", "sqrt", "strftime", "string_agg", "substr", "substring",
    "sum", "tan", "tanh", "time", "timediff", "total", "trim", "trunc", "typeof", "unhex",
    "unicode", "unixepoch", "unlikely", "upper",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_for_the_search() {
        assert!(POSTGRES.is_sorted());
        assert!(SQLITE.is_sorted());
    }
}
