//! The reviewed list of DuckDB's functions.
//!
//! A function that is not on a list here is rejected, so a new DuckDB version opens nothing; a test
//! compares the lists with what DuckDB itself says it has and fails when one is missing, gone, or
//! of another stability. Scalar functions, aggregates, window functions and macros share one
//! namespace; functions in `FROM` have their own (`repeat` and `histogram` are in both, and differ).

use std::collections::HashMap;
use std::sync::LazyLock;

/// What the review of one function says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Review {
    /// May be called. `consistent`: the same arguments over the same data give the same answer.
    Allowed { consistent: bool },
    /// May not be called; the reason completes the sentence "function x …".
    Refused(&'static str),
}

/// Why a function that no list names is rejected.
pub(super) const UNKNOWN: &str = "is not on the list of reviewed functions";

/// The review of a function called in an expression, whatever schema it is qualified with.
pub(super) fn expression(name: &str) -> Option<Review> {
    EXPRESSIONS
        .get(name)
        .copied()
        .or_else(|| {
            REFUSED_PREFIXES
                .iter()
                .find(|(prefix, _)| name.starts_with(prefix))
                .map(|(_, reason)| Review::Refused(reason))
        })
        // It is rejected either way, but for what it does rather than as unknown.
        .or_else(|| table(name).filter(|review| matches!(review, Review::Refused(_))))
}

/// The review of a function called in `FROM`.
pub(super) fn table(name: &str) -> Option<Review> {
    TABLES.get(name).copied()
}

/// How a macro multiplies what is written: (copies of an argument, nodes of its own body). DuckDB
/// expands macros by copying the argument into the body, so nesting one that names its argument
/// twice doubles the statement at every level.
pub(super) fn macro_growth(name: &str) -> Option<(u64, u64)> {
    COPYING.iter().find(|(copying, ..)| *copying == name).map(|&(_, copies, body)| (copies, body))
}

/// Every name that the lists have for expressions.
#[cfg(test)]
pub(super) fn expressions() -> impl Iterator<Item = &'static str> {
    EXPRESSIONS.keys().copied()
}

/// Every name that the lists have for `FROM`.
#[cfg(test)]
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.keys().copied()
}

static EXPRESSIONS: LazyLock<HashMap<&str, Review>> =
    LazyLock::new(|| index(CONSISTENT, INCONSISTENT, REFUSED));
static TABLES: LazyLock<HashMap<&str, Review>> =
    LazyLock::new(|| index(TABLE_CONSISTENT, TABLE_INCONSISTENT, TABLE_REFUSED));

fn index(
    consistent: &'static str,
    inconsistent: &'static str,
    refused: &[(&'static str, &'static str)],
) -> HashMap<&'static str, Review> {
    let reviewed =
        |names: &'static str, review| names.split_whitespace().map(move |name| (name, review));
    let refused =
        refused.iter().flat_map(|(reason, names)| reviewed(names, Review::Refused(reason)));
    reviewed(consistent, Review::Allowed { consistent: true })
        .chain(reviewed(inconsistent, Review::Allowed { consistent: false }))
        .chain(refused)
        .collect()
}

/// Functions of which DuckDB has hundreds by the same pattern.
const REFUSED_PREFIXES: &[(&str, &str)] = &[
    ("__internal_", "is internal to DuckDB"),
    ("icu_collate_", "is internal to DuckDB; write COLLATE"),
];

/// Macros whose body names an argument more than once.
const COPYING: &[(&str, u64, u64)] = &[
    ("array_pop_back", 2, 4),
    ("array_to_string", 2, 8),
    ("fmod", 2, 4),
    ("json_group_array", 2, 8),
    ("json_group_object", 2, 12),
    ("map_contains_entry", 2, 4),
    ("nullif", 2, 4),
    ("round_even", 3, 12),
    ("roundbankers", 3, 12),
    ("split_part", 2, 8),
    ("wavg", 2, 8),
    ("weighted_avg", 2, 8),
];

/// Allowed. DuckDB calls `current_localtime` and `current_localtimestamp` consistent, although the
/// clock is in them; `ago` is a macro over `current_timestamp`.
const INCONSISTENT: &str = "
    ago current_date current_localtime current_localtimestamp error gen_random_uuid
    get_current_time get_current_timestamp now random today transaction_timestamp uuid uuidv4 uuidv7
";

const REFUSED: &[(&str, &str)] = &[
    (
        "overflows the stack of the process on deeply nested JSON; use json_type and json_keys",
        "json_group_structure json_structure",
    ),
    ("shows settings", "current_setting getvariable"),
    (
        "shows the session or the catalog",
        "
            current_connection_id current_query current_query_id current_schemas
            current_transaction_id
            get_block_size in_search_path txid_current
        ",
    ),
    (
        "is part of DuckDB's PostgreSQL catalog",
        "
            col_description format_pg_type format_type has_any_column_privilege
            has_column_privilege has_database_privilege
            has_foreign_data_wrapper_privilege has_function_privilege
            has_language_privilege has_schema_privilege has_sequence_privilege
            has_server_privilege has_table_privilege has_tablespace_privilege
            inet_client_addr inet_client_port inet_server_addr inet_server_port
            map_to_pg_oid obj_description pg_collation_is_visible pg_conf_load_time
            pg_conversion_is_visible pg_function_is_visible pg_get_constraintdef
            pg_get_expr pg_get_viewdef pg_has_role pg_is_other_temp_schema
            pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible
            pg_opfamily_is_visible pg_postmaster_start_time pg_table_is_visible
            pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible
            pg_ts_template_is_visible pg_type_is_visible shobj_description
        ",
    ),
    (
        "turns SQL text into a statement, or a statement into text",
        "json_deserialize_sql json_serialize_plan json_serialize_sql",
    ),
    ("shows statistics of rows that the query does not return", "stats"),
    ("changes or shows the state of the server", "currval nextval setseed write_log"),
    ("only waits", "pg_sleep sleep_ms"),
    (
        "is internal to DuckDB",
        "
            array_to_string_comma_default combine constant_or_null create_sort_key
            finalize get_type icu_sort_key make_type parse_duckdb_log_message
            remap_struct replace_type timetz_byte_comparable unpivot_list
            variant_bytes_to_variant variant_to_parquet_variant vector_type
        ",
    ),
    (
        // It allocates outside of DuckDB's memory limit, 8,192 values or what it is told per group,
        // and an allocation that fails is an internal error, which invalidates the database.
        "breaks DuckDB when memory is short; use approx_quantile",
        "reservoir_quantile",
    ),
    (
        "backtracks for minutes on some patterns and cannot be interrupted; use LIKE, SIMILAR TO or regexp_matches",
        "~~~",
    ),
];

const TABLE_CONSISTENT: &str = "
    generate_series json_each json_tree range repeat repeat_row unnest
";

/// Daylight saving is in its answer.
const TABLE_INCONSISTENT: &str = "
    pg_timezone_names
";

const TABLE_REFUSED: &[(&str, &str)] = &[
    (
        "reads files",
        "
            arrow_scan arrow_scan_dumb glob parquet_bloom_probe parquet_file_metadata
            parquet_full_metadata parquet_kv_metadata parquet_metadata parquet_scan
            parquet_schema read_blob read_csv read_csv_auto read_duckdb read_json
            read_json_auto read_json_objects read_json_objects_auto read_ndjson
            read_ndjson_auto read_ndjson_objects read_parquet read_text sniff_csv
        ",
    ),
    (
        "runs SQL, or names tables, in text",
        "
            check_peg_parser histogram histogram_values json_execute_serialized_sql
            query query_table sql_auto_complete
        ",
    ),
    (
        "changes the state of the server",
        "
            checkpoint disable_logging disable_peg_parser disable_profiling
            enable_logging enable_peg_parser enable_profiling force_checkpoint
            truncate_duckdb_logs
        ",
    ),
    (
        "shows the catalog, settings, secrets or memory of the server",
        "
            duckdb_approx_database_count duckdb_columns duckdb_connection_count
            duckdb_constraints duckdb_coordinate_systems duckdb_databases
            duckdb_dependencies duckdb_extensions duckdb_external_file_cache
            duckdb_functions duckdb_indexes duckdb_keywords duckdb_log_contexts
            duckdb_logs duckdb_logs_parsed duckdb_memory duckdb_optimizers
            duckdb_prepared_statements duckdb_profiling_settings duckdb_schemas
            duckdb_secret_types duckdb_secrets duckdb_sequences duckdb_settings
            duckdb_table_sample duckdb_tables duckdb_temporary_files duckdb_types
            duckdb_variables duckdb_views pragma_collations pragma_database_size
            pragma_metadata_info pragma_platform pragma_show pragma_storage_info
            pragma_table_info pragma_user_agent pragma_version which_secret
        ",
    ),
    (
        "is internal to DuckDB",
        "icu_calendar_names seq_scan summary test_all_types test_vector_types",
    ),
];

/// `unnest` and `unlist` are known to the binder only and missing from `duckdb_functions()`.
const CONSISTENT: &str = "
    !__postfix !~~ !~~* % & && * ** + - ->> / // <-> << <=> <@ >> @ @> ^ ^@ abs acos acosh add
    age aggregate alias any_value apply approx_count_distinct approx_quantile approx_top_k
    arbitrary arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last
    argmax argmin array_agg array_aggr array_aggregate array_append array_apply array_cat
    array_concat array_contains array_cosine_distance array_cosine_similarity
    array_cross_product array_distance array_distinct array_dot_product array_extract
    array_filter array_grade_up array_has array_has_all array_has_any array_indexof
    array_inner_product array_intersect array_length array_negative_dot_product
    array_negative_inner_product array_pop_back array_pop_front array_position array_prepend
    array_push_back array_push_front array_reduce array_resize array_reverse array_reverse_sort
    array_select array_slice array_sort array_to_json array_to_string array_transform
    array_unique array_value array_where array_zip ascii asin asinh atan atan2 atanh avg bar
    base64 bin bit_and bit_count bit_length bit_or bit_position bit_xor bitstring bitstring_agg
    bool_and bool_or can_cast_implicitly cardinality cast_to_type cbrt ceil ceiling century
    char_length character_length chr concat concat_ws contains corr cos cosh cot count count_if
    count_star countif covar_pop covar_samp cume_dist current_catalog current_database current_role
    current_schema current_user
    damerau_levenshtein date_add date_diff date_part date_sub date_trunc datediff datepart
    datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade decode
    degrees dense_rank divide editdist3 element_at encode ends_with entropy enum_code enum_first
    enum_last enum_range enum_range_boundary epoch epoch_ms epoch_ns epoch_us equi_width_bins
    era even exp factorial favg fdiv fill filter first first_value flatten floor fmod format
    format_bytes formatreadabledecimalsize formatreadablesize from_base64 from_binary from_hex
    from_json from_json_strict fsum gamma gcd generate_series generate_subscripts geomean
    geometric_mean get_bit grade_up greatest greatest_common_divisor group_concat hamming hash
    hex histogram histogram_exact hour ilike_escape instr is_histogram_other_bin isfinite isinf
    isnan isodow isoyear jaccard jaro_similarity jaro_winkler_similarity json json_array
    json_array_length json_contains json_exists json_extract json_extract_path
    json_extract_path_text json_extract_string json_group_array json_group_object json_keys
    json_merge_patch json_object json_pretty json_quote json_transform json_transform_strict
    json_type json_valid json_value julian kahan_sum kurtosis kurtosis_pop lag last last_day
    last_value lcase lcm lead least least_common_multiple left left_grapheme len length
    length_grapheme levenshtein lgamma like_escape list list_aggr list_aggregate list_any_value
    list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or
    list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains
    list_cosine_distance list_cosine_similarity list_count list_distance list_distinct
    list_dot_product list_element list_entropy list_extract list_filter list_first list_grade_up
    list_has list_has_all list_has_any list_histogram list_indexof list_inner_product
    list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median
    list_min list_mode list_negative_dot_product list_negative_inner_product list_pack
    list_position list_prepend list_product list_reduce list_resize list_reverse
    list_reverse_sort list_select list_sem list_skewness list_slice list_sort list_stddev_pop
    list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop
    list_var_samp list_where list_zip listagg ln log log10 log2 lower lpad ltrim mad make_date
    make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz map map_concat
    map_contains map_contains_entry map_contains_value map_entries map_extract map_extract_value
    map_from_entries map_keys map_values max max_by md5 md5_number md5_number_lower
    md5_number_upper mean median microsecond millennium millisecond min min_by minute mismatches
    mod mode month monthname multiply nanosecond nextafter nfc_normalize normalized_interval
    not_ilike_escape not_like_escape nth_value ntile nullif octet_length ord parse_dirname
    parse_dirpath parse_filename parse_formatted_bytes parse_path percent_rank pg_size_pretty
    pg_typeof pi position pow power prefix printf product quantile quantile_cont quantile_disc
    quarter radians range rank rank_dense reduce regexp_escape regexp_extract regexp_extract_all
    regexp_full_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    repeat replace reverse right right_grapheme round round_even roundbankers row row_number
    row_to_json rpad rtrim second sem session_user set_bit sha1 sha256 sign signbit sin sinh
    skewness split split_part sqrt st_asbinary st_astext st_aswkb st_aswkt st_crs st_geomfromwkb
    st_intersects_extent st_setcrs starts_with stddev stddev_pop stddev_samp str_split
    str_split_regex strftime string_agg string_split string_split_regex string_to_array
    strip_accents strlen strpos strptime struct_concat struct_contains struct_extract
    struct_extract_at struct_has struct_indexof struct_insert struct_keys struct_pack
    struct_position struct_update struct_values substr substring substring_grapheme subtract
    suffix sum sum_no_overflow sumkahan switch tan tanh time_bucket timezone timezone_hour
    timezone_minute to_base to_base64 to_binary to_centuries to_days to_decades to_hex to_hours
    to_json to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters
    to_seconds to_timestamp to_weeks to_years translate trim trunc try_strptime typeof ucase
    unbin unhex unicode union_extract union_tag union_value unlist unnest upper url_decode
    url_encode user uuid_extract_timestamp uuid_extract_version var_pop var_samp variance
    variant_extract variant_normalize variant_typeof version wavg week weekday weekofyear weighted_avg
    xor year yearweek | || ~ ~~ ~~*
";
