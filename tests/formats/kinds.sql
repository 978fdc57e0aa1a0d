SELECT
    i,
    'name ' || i % 3 AS name,
    CASE WHEN i % 11 <> 0 THEN list_transform(range(i % 5), lambda x: x * i) END AS numbers,
    CASE WHEN i % 7 <> 0 THEN list_transform(
        range(i % 4),
        lambda x: CASE WHEN x <> 2 THEN 'text ' || x || repeat('é', i % 20) END
    ) END AS texts,
    CASE WHEN i % 5 <> 0 THEN {
        'name': CASE WHEN i % 3 <> 0 THEN 'name ' || i % 3 END,
        'amount': (i * 1.25)::DECIMAL(18, 2),
        'days': [DATE '2026-01-01' + i::INTEGER]
    } END AS pair,
    CASE WHEN i % 13 <> 0 THEN map(
        list_transform(range(i % 3), lambda x: 'k' || x), list_transform(range(i % 3), lambda x: i)
    ) END AS pairs,
    i::DECIMAL(38, 3) AS wide,
    (i % 100)::DECIMAL(4, 2) / 10 AS narrow,
    CASE WHEN i % 17 <> 0 THEN TIMESTAMP '2026-01-01' + to_microseconds(i) END AS at,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours(i) AS at_zone,
    TIMESTAMP_NS '2026-01-01 00:00:00.000001' AS at_nanos,
    TIMESTAMP_MS '2026-01-01 00:00:00.001' AS at_millis,
    ('00000000-0000-0000-0000-' || lpad(i::VARCHAR, 12, '0'))::UUID AS id,
    i::VARCHAR::BLOB AS bytes,
    TIME '00:00:00' + to_seconds(i) AS clock,
    '12:00:00+02'::TIMETZ AS clock_zone,
    INTERVAL (i) DAYS AS span,
    CASE WHEN i % 2 = 0 THEN i / 3 END AS half,
    (i / 7)::FLOAT AS seventh,
    i % 2 = 0 AS even,
    (i % 256)::UTINYINT AS byte,
    '{"a": [1, null]}'::JSON AS document
FROM range(2500) t(i)
