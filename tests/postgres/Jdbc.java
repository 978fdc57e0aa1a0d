import java.sql.*;
import java.util.*;

/** What pgjdbc gets of a running martd: Jdbc.java PORT. */
class Jdbc {
    static void is(Object found, Object expected) {
        if (!Objects.equals(found, expected)) throw new AssertionError(found + ", not " + expected);
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        return values;
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/martd?user=anyone";
        try (Connection connection = DriverManager.getConnection(url)) {
            DatabaseMetaData about = connection.getMetaData();
            is(about.getDatabaseProductName(), "PostgreSQL");
            is(column(about.getSchemas(), "TABLE_SCHEM"), List.of("information_schema", "mart", "pg_catalog"));
            is(column(about.getTables(null, "mart", "%", new String[] {"TABLE"}), "TABLE_NAME"), List.of("big", "kinds"));
            is(column(about.getTables(null, null, "big", null), "TABLE_TYPE"), List.of("TABLE"));
            ResultSet columns = about.getColumns(null, "mart", "big", "%");
            is(column(columns, "COLUMN_NAME"), List.of("id", "name", "amount", "day"));
            columns = about.getColumns(null, "mart", "big", "amount");
            columns.next();
            is(columns.getString("TYPE_NAME"), "numeric");
            is(columns.getInt("COLUMN_SIZE"), 12);
            is(columns.getInt("DECIMAL_DIGITS"), 2);
            is(columns.getString("REMARKS"), null);
            is(column(about.getPrimaryKeys(null, "mart", "big"), "COLUMN_NAME"), List.of());
            is(column(about.getImportedKeys(null, "mart", "big"), "FKCOLUMN_NAME"), List.of());
            is(column(about.getExportedKeys(null, "mart", "big"), "FKCOLUMN_NAME"), List.of());
            is(column(about.getIndexInfo(null, "mart", "big", false, true), "INDEX_NAME"), List.of());
            is(column(about.getProcedures(null, "mart", "%"), "PROCEDURE_NAME"), List.of());
            is(column(about.getFunctions(null, "mart", "%"), "FUNCTION_NAME"), List.of());
            is(column(about.getTypeInfo(), "TYPE_NAME").contains("timestamptz"), true);
            is(column(about.getCatalogs(), "TABLE_CAT"), List.of("martd"));
            is(column(about.getTableTypes(), "TABLE_TYPE").contains("TABLE"), true);

            // Parameters of every kind, as text and, from the fifth time on, binary.
            String sql = "SELECT count(*) FROM mart.big WHERE id >= ? AND amount < ? AND day >= ? AND name LIKE ?";
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                for (int times = 0; times < 7; times++) {
                    statement.setInt(1, 100);
                    statement.setBigDecimal(2, new java.math.BigDecimal("300.00"));
                    statement.setDate(3, java.sql.Date.valueOf("2026-01-01"));
                    statement.setString(4, "n%");
                    ResultSet rows = statement.executeQuery();
                    rows.next();
                    is(rows.getLong(1), 100L);
                }
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT b, s, i, l, f, d, n, t, day, wall, moment, u, list FROM mart.kinds")) {
                for (int times = 0; times < 7; times++) {
                    ResultSet rows = statement.executeQuery();
                    rows.next();
                    is(rows.getBoolean("b"), true);
                    is(rows.getInt("s"), -300);
                    is(rows.getInt("i"), -70000);
                    is(rows.getLong("l"), -9000000000L);
                    is(rows.getFloat("f"), 1.5f);
                    is(rows.getDouble("d"), -1e300);
                    is(rows.getBigDecimal("n"), new java.math.BigDecimal("-0.05"));
                    is(rows.getString("t"), "größe");
                    is(rows.getObject("day", java.time.LocalDate.class), java.time.LocalDate.parse("1999-12-31"));
                    is(rows.getObject("wall", java.time.LocalDateTime.class), java.time.LocalDateTime.parse("2026-01-31T12:00:00.5"));
                    is(rows.getObject("moment", java.time.OffsetDateTime.class).toInstant(), java.time.Instant.parse("2026-01-31T10:00:00Z"));
                    is(rows.getObject("u").toString(), "1b671a64-40d5-491e-99b0-da01ff1f3341");
                    is(Arrays.toString((Object[]) rows.getArray("list").getArray()), "[1, null, 3]");
                    is(rows.getMetaData().getColumnTypeName(13), "_int4");
                }
            }

            // A page after the other.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(30_000);
                ResultSet rows = statement.executeQuery("SELECT id FROM mart.big ORDER BY id");
                int next = 0;
                while (rows.next()) is(rows.getInt(1), next++);
                is(next, 200_000);
            }
            connection.commit();
            connection.setAutoCommit(true);

            try (Statement statement = connection.createStatement()) {
                statement.executeQuery("SELECT nothing FROM mart.big");
                throw new AssertionError("there is no such column");
            } catch (SQLException error) {
                is(error.getSQLState(), "42703");
            }
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("SELECT count(*) FROM range(100000000) a, range(1000) b WHERE a.range + b.range = 1");
                throw new AssertionError("it was to be cancelled");
            } catch (SQLException error) {
                is(error.getSQLState(), "57014");
            }
        }
    }
}
